//! `sateen.mds.v1.Changelog`.

use std::sync::Arc;

use sateen_proto::convert::{changelog_name, changelog_page, hold, wanted_mask};
use sateen_proto::mds::changelog_server::Changelog as ChangelogService;
use sateen_proto::mds::*;
use sateen_types::{FsName, FsResult};
use tonic::{Request, async_trait};

use super::{Answer, answer};
use crate::cluster::Cluster;
use crate::fs::FileSystem;

/// See the module.
pub struct Service {
    pub(super) cluster: Arc<Cluster>,
}

#[async_trait]
impl ChangelogService for Service {
    async fn register(&self, request: Request<RegisterRequest>) -> Answer<ChangelogUser> {
        let r = request.into_inner();
        let user = async {
            let (name, mask) = (changelog_name(r.name)?, wanted_mask(r.mask)?);
            self.named(&r.fs_name)?.register_follower(name, mask).await
        };
        answer(user.await.map(|user| (&user).into()))
    }

    async fn deregister(&self, request: Request<DeregisterRequest>) -> Answer<DeregisterReply> {
        let r = request.into_inner();
        let done = async { self.named(&r.fs_name)?.deregister_follower(r.id).await };
        answer(done.await.map(|()| DeregisterReply {}))
    }

    async fn users(&self, request: Request<UsersRequest>) -> Answer<UsersReply> {
        let r = request.into_inner();
        let log = async { self.named(&r.fs_name)?.changelog().await };
        answer(log.await.map(|log| (&log).into()))
    }

    async fn read(&self, request: Request<ChangelogReadRequest>) -> Answer<ChangelogReadReply> {
        let r = request.into_inner();
        let records = async {
            let max = changelog_page(r.max)?;
            self.named(&r.fs_name)?.read_changelog(r.after, max, hold(r.hold_ms)).await
        };
        let reply = |records: Vec<_>| ChangelogReadReply { records: records.iter().map(Into::into).collect() };
        answer(records.await.map(reply))
    }

    async fn clear(&self, request: Request<ClearRequest>) -> Answer<ClearReply> {
        let r = request.into_inner();
        let done = async { self.named(&r.fs_name)?.clear_changelog(r.id, r.end).await };
        answer(done.await.map(|()| ClearReply {}))
    }
}

impl Service {
    fn named(&self, name: &str) -> FsResult<Arc<FileSystem>> {
        let name: FsName = name.parse()?;
        self.cluster.by_name(&name)
    }
}
