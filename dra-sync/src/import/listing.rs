//! What an import sees: the listing, and which of its objects need not be looked at.
//!
//! The store is asked for anew with each request, so that an import that takes longer than its keys are good for goes on with those
//! that have taken their place.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use sateen_types::limits::ETAG_BYTES_MAX;
use sateen_types::repository::{ImportedObject, ObjectPath};
use sateen_types::{FsCode, FsError, FsResult};

use super::spans::{Next, Span, Spans};
use crate::figures::Figures;
use crate::remote::{CHECK_RETRY_FOR, IMPORT_RETRY_FOR, LIST_PAGE_MAX, Listed, Remote, RemoteError, Retries, Trouble};
use crate::seen::{Seen, look, retried};

/// Gives the store of a link, with the keys as they are now.
pub type Open = Box<dyn Fn() -> BoxFuture<'static, FsResult<Arc<Remote>>> + Send + Sync>;
/// Asks the MDS which of these objects it knows as they are.
pub type AskKnown = Box<dyn Fn(Vec<ImportedObject>) -> BoxFuture<'static, FsResult<Vec<bool>>> + Send + Sync>;

/// Where an import looks, and whom it asks.
pub struct Store {
    /// See [`Open`].
    pub open: Open,
    /// See [`AskKnown`].
    pub known: AskKnown,
    /// Of the process.
    pub figures: Arc<Figures>,
}

/// One object of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// To be looked at.
    Listed(Listed),
    /// The MDS knows it as it is: its key.
    Known(Vec<u8>),
    /// Nothing follows up to this key; `None`: nothing at all.
    End(Option<Vec<u8>>),
}

fn io(e: RemoteError) -> FsError {
    FsError::new(FsCode::Io, e.message)
}

impl Store {
    /// Asks the store, and once more with other keys if those of the first time have expired.
    async fn ask<T, F>(&self, request: impl Fn(Arc<Remote>) -> F) -> Result<T, RemoteError>
    where
        F: Future<Output = Result<T, RemoteError>>,
    {
        let mut retries = Retries::within(IMPORT_RETRY_FOR);
        loop {
            let error = match (self.open)().await {
                Ok(remote) => match request(remote).await {
                    Err(e) if e.trouble == Trouble::Expired => e,
                    done => return done,
                },
                // Its keys are being written in this moment, perhaps.
                Err(e) => RemoteError::new(Trouble::Unavailable, e.to_string()),
            };
            if !retries.wait().await {
                return Err(error);
            }
        }
    }

    /// Looks at an object.
    pub async fn look(&self, listed: &Listed) -> FsResult<Seen> {
        let seen = self.ask(|remote| async move {
            look(&remote, &listed.key, Some(listed), IMPORT_RETRY_FOR, &self.figures).await
        });
        seen.await.map_err(io)
    }

    /// A page of the listing of a range that goes on behind `after`; and how that goes on then.
    async fn page(&self, after: &[u8], span: &Span) -> FsResult<(Vec<Entry>, Next)> {
        let page = self.ask(|remote| async move {
            retried(IMPORT_RETRY_FOR, &self.figures, || remote.list(after, LIST_PAGE_MAX)).await
        });
        let mut page = page.await.map_err(io)?;
        self.figures.listed.fetch_add(page.objects.len() as u64, Ordering::Relaxed);
        let next = span.take(&mut page.objects, page.more);
        Ok((self.sorted_out(page.objects).await?, next))
    }

    /// The first key behind another one. Not tried for long: an import goes on without.
    pub async fn first_behind(&self, key: String) -> Result<Option<Vec<u8>>, RemoteError> {
        let remote = (self.open)().await.map_err(|e| RemoteError::new(Trouble::Unavailable, e.to_string()))?;
        if !remote.seeks() {
            return Err(RemoteError::new(Trouble::Refused, "listings of this store begin at its first key only"));
        }
        let page = retried(CHECK_RETRY_FOR, &self.figures, || remote.list(key.as_bytes(), 1)).await?;
        Ok(page.objects.into_iter().next().map(|object| object.key))
    }

    /// Which objects the MDS knows as they are.
    async fn sorted_out(&self, objects: Vec<Listed>) -> FsResult<Vec<Entry>> {
        // What is not among them is looked at, and that finds what is wrong with it.
        let can_be_known =
            |o: &Listed| !o.etag.is_empty() && o.etag.len() <= ETAG_BYTES_MAX && ObjectPath::parse(&o.key).is_ok();
        let listed = |o: &Listed| ImportedObject::listed(o.key.clone(), o.size, o.etag.clone(), o.modified);
        let question: Vec<_> = objects.iter().filter(|o| can_be_known(o)).map(listed).collect();
        if question.is_empty() {
            return Ok(objects.into_iter().map(Entry::Listed).collect());
        }
        let known = match (self.known)(question).await {
            // An MDS of before it could be asked.
            Err(e) if e.code == FsCode::NotSupported => Vec::new(),
            known => known?,
        };
        let mut known = known.into_iter();
        let entry = |o: Listed| match can_be_known(&o) && known.next().unwrap_or(false) {
            true => Entry::Known(o.key),
            false => Entry::Listed(o),
        };
        Ok(objects.into_iter().map(entry).collect())
    }
}

/// What a listing names of a range, one after the other, and at last its end; each with a stamp from before it was asked for.
pub fn listing(
    store: Arc<Store>,
    span: Arc<Span>,
    spans: Arc<Spans>,
    newest: Arc<AtomicU64>,
) -> BoxStream<'static, (u64, FsResult<Entry>)> {
    let first = Some(span.range().after.clone());
    let pages = futures::stream::unfold(first, move |after| {
        let (store, span, spans, newest) = (store.clone(), span.clone(), spans.clone(), newest.clone());
        async move {
            let after = after?;
            let stamp = newest.load(Ordering::Relaxed);
            let page = store.page(&after, &span).await;
            spans.told();
            match page {
                Ok((entries, next)) => {
                    let mut entries: Vec<_> = entries.into_iter().map(|one| (stamp, Ok(one))).collect();
                    let after = match next {
                        Next::Behind(after) => Some(after),
                        Next::End(end) => {
                            entries.push((stamp, Ok(Entry::End(end))));
                            None
                        }
                    };
                    Some((entries, after))
                }
                Err(e) => Some((vec![(stamp, Err(e))], None)),
            }
        }
    });
    pages.map(futures::stream::iter).flatten().boxed()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures::FutureExt;
    use sateen_types::repository::{KeyRange, RepositorySettings};

    use super::*;
    use crate::config::Config;

    /// Keys that were asked for.
    type Keys = Arc<Mutex<Vec<Vec<u8>>>>;

    /// A directory with these files, linked; whom it asks remembers the keys and knows those that `knows` says.
    fn store(
        dir: &std::path::Path,
        files: &[&str],
        knows: impl Fn(&ImportedObject) -> FsResult<bool> + Send + Sync + 'static,
    ) -> (Arc<Store>, Keys) {
        for file in files {
            std::fs::write(dir.join(file), file).expect("writes");
        }
        let url = format!("file://{}/", dir.display()).parse().expect("a URL");
        let settings = RepositorySettings::new("/d".parse().expect("a path"), url);
        let config = Config { directories: vec![dir.to_owned()], ..Config::default() };
        let remote = Arc::new(Remote::open(&settings, &config).expect("opens"));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let keys = Arc::clone(&asked);
        let known: AskKnown = Box::new(move |objects| {
            keys.lock().expect("not poisoned").extend(objects.iter().map(|o| o.key.clone()));
            let answer = objects.iter().map(&knows).collect();
            async move { answer }.boxed()
        });
        let open: Open = Box::new(move || {
            let remote = Arc::clone(&remote);
            async move { Ok(remote) }.boxed()
        });
        (Arc::new(Store { open, known, figures: Arc::default() }), asked)
    }

    async fn entries(store: &Arc<Store>) -> Vec<FsResult<Entry>> {
        let spans = Arc::new(Spans::default());
        let all = listing(Arc::clone(store), spans.add(KeyRange::ALL), spans, Arc::new(AtomicU64::new(3)));
        all.map(|(stamp, entry)| {
            assert_eq!(stamp, 3);
            entry
        })
        .collect()
        .await
    }

    #[tokio::test]
    async fn what_the_mds_knows_is_not_looked_at() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (store, asked) = store(dir.path(), &["a", "b", "c"], |object| Ok(object.key == b"b" && object.size == 1));
        let entries = entries(&store).await;
        let shown: Vec<_> = entries
            .iter()
            .map(|entry| match entry.as_ref().expect("lists") {
                Entry::Known(key) => ("known", key.clone()),
                Entry::Listed(listed) => ("listed", listed.key.clone()),
                Entry::End(end) => ("end", end.clone().unwrap_or_default()),
            })
            .collect();
        let expected = [("listed", "a"), ("known", "b"), ("listed", "c"), ("end", "")];
        assert_eq!(shown, expected.map(|(what, key)| (what, key.as_bytes().to_vec())));
        assert_eq!(*asked.lock().expect("not poisoned"), [b"a".to_vec(), b"b".to_vec(), b"c".to_vec()]);
    }

    #[tokio::test]
    async fn an_mds_that_cannot_be_asked_knows_nothing_and_one_that_refuses_ends_the_import() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let of_before = |_: &ImportedObject| Err(FsError::new(FsCode::NotSupported, "what?"));
        let (before, _) = store(dir.path(), &["a"], of_before);
        assert!(matches!(entries(&before).await[0], Ok(Entry::Listed(_))));
        let (stale, _) = store(dir.path(), &["a"], |_| Err(FsError::new(FsCode::Stale, "not yours")));
        let all = entries(&stale).await;
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].as_ref().expect_err("ends").code, FsCode::Stale);
    }
}
