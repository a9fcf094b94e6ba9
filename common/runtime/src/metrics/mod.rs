//! Figures about a process for Prometheus, made when they are asked for.
//!
//! A process hands [`serve`] a function that fills a [`Page`]; nothing is kept here.

mod http;
mod page;

pub use http::serve;
pub use page::Page;
