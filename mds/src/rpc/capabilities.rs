//! `sateen.mds.v1.Capabilities`.

use std::sync::{Arc, Weak};

use sateen_proto::convert::{fid, session_id, unreported, using};
use sateen_proto::mds::capabilities_server::Capabilities as CapabilitiesService;
use sateen_proto::mds::*;
use sateen_runtime::Shutdown;
use sateen_types::{FsResult, SessionId};
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, async_trait};

use super::{Answer, answer};
use crate::cluster::Cluster;
use crate::fs::FileSystem;

/// Messages on their way to one client; what does not fit waits in the table.
const MESSAGES: usize = 4;

/// Directories in one message.
const DIRECTORIES_MAX: usize = 256;

/// See the module.
pub struct Service {
    pub(super) cluster: Arc<Cluster>,
    pub(super) stop: Shutdown,
}

#[async_trait]
impl CapabilitiesService for Service {
    type WatchStream = ReceiverStream<Result<WatchReply, Status>>;

    async fn watch(&self, request: Request<WatchRequest>) -> Answer<Self::WatchStream> {
        answer(self.watch(request.get_ref()))
    }

    async fn answer(&self, request: Request<AnswerRequest>) -> Answer<AnswerReply> {
        answer(self.answered(request.get_ref()))
    }
}

impl Service {
    fn fs(&self, session: &[u8]) -> FsResult<(SessionId, Arc<FileSystem>)> {
        let session = session_id(session)?;
        Ok((session, self.cluster.by_session(session)?))
    }

    fn watch(&self, r: &WatchRequest) -> FsResult<ReceiverStream<Result<WatchReply, Status>>> {
        let (session, fs) = self.fs(&r.session_id)?;
        let (stream, listener) = fs.listen(session)?;
        let (tell, told) = mpsc::channel(MESSAGES);
        let (fs, stop) = (Arc::downgrade(&fs), self.stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = carry(&fs, (session, stream), &listener, &tell) => {}
                () = tell.closed() => {}
                // So that the connection can end.
                () = stop.requested() => {}
            }
        });
        Ok(ReceiverStream::new(told))
    }

    fn answered(&self, r: &AnswerRequest) -> FsResult<AnswerReply> {
        let (session, fs) = self.fs(&r.session_id)?;
        let told = (using(r.using)?, unreported(r)?);
        fs.answer_recall(session, fid(r.fid, "fid")?, r.number, told)?;
        Ok(AnswerReply {})
    }
}

/// Tells a client of recalls until the stream is not its own any more. Does not keep the file system open.
async fn carry(
    fs: &Weak<FileSystem>,
    (session, stream): (SessionId, u64),
    listener: &Notify,
    tell: &mpsc::Sender<Result<WatchReply, Status>>,
) {
    if tell.send(Ok(WatchReply::default())).await.is_err() {
        return;
    }
    loop {
        let told = listener.notified();
        tokio::pin!(told);
        told.as_mut().enable();
        let found = fs.upgrade().and_then(|fs| {
            let recalls = fs.take_recalls(session, stream)?;
            Some((recalls, fs.take_held_recalls(session, stream, DIRECTORIES_MAX)))
        });
        let Some((recalls, held)) = found else { return };
        if recalls.is_empty() && held.is_empty() {
            told.await;
            continue;
        }
        let recalls = recalls.iter().map(Into::into).collect();
        let message = WatchReply { recalls, directories: held.into_iter().map(Into::into).collect() };
        if tell.send(Ok(message)).await.is_err() {
            return;
        }
    }
}
