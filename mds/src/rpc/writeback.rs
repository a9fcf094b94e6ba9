//! `sateen.mds.v1.WriteBack`.

use std::sync::Arc;

use sateen_proto::convert::{bad, credential, fid, required, session_id};
use sateen_proto::mds::write_back_server::WriteBack as WriteBackService;
use sateen_proto::mds::*;
use sateen_proto::status::to_detail;
use sateen_types::limits::{LOG_CHANGES_MAX, RELEASES_MAX};
use sateen_types::{Fid, FsResult, SessionId};
use tonic::{Request, async_trait};

use super::{Answer, answer};
use crate::cluster::Cluster;
use crate::command;
use crate::fs::FileSystem;

/// See the module.
pub struct Service {
    pub(super) cluster: Arc<Cluster>,
}

#[async_trait]
impl WriteBackService for Service {
    async fn lend(&self, request: Request<LendRequest>) -> Answer<LendReply> {
        let lent = async {
            let (session, fs) = self.fs(&request.get_ref().session_id)?;
            Ok(LendReply { sequence: fs.lend_sequence(session).await? })
        };
        answer(lent.await)
    }

    async fn apply(&self, request: Request<ApplyRequest>) -> Answer<ApplyReply> {
        answer(self.applied(request.into_inner()).await)
    }

    async fn release(&self, request: Request<ReleaseRequest>) -> Answer<ReleaseReply> {
        let r = request.into_inner();
        let released = async {
            let (session, fs) = self.fs(&r.session_id)?;
            if r.directories.len() > RELEASES_MAX {
                return Err(bad("directories", format_args!("{}, at most {RELEASES_MAX}", r.directories.len())));
            }
            let dirs = r.directories.into_iter().map(Fid::try_from).collect::<FsResult<Vec<_>>>()?;
            fs.release(session, dirs).await?;
            Ok(ReleaseReply {})
        };
        answer(released.await)
    }
}

impl Service {
    fn fs(&self, session: &[u8]) -> FsResult<(SessionId, Arc<FileSystem>)> {
        let session = session_id(session)?;
        Ok((session, self.cluster.by_session(session)?))
    }

    async fn applied(&self, r: ApplyRequest) -> FsResult<ApplyReply> {
        let (session, fs) = self.fs(&r.session_id)?;
        if !(1..=LOG_CHANGES_MAX).contains(&r.changes.len()) {
            return Err(bad("changes", format_args!("{} is not 1 to {LOG_CHANGES_MAX}", r.changes.len())));
        }
        let requests = r.changes.into_iter().enumerate();
        let requests = requests.map(|(i, logged)| decode(session, logged, i == 0)).collect::<FsResult<Vec<_>>>()?;
        let made_held: Vec<bool> = requests.iter().map(|r| r.hold).collect();
        let (replies, error) = fs.apply_log(requests).await?;
        let mut answers = Vec::with_capacity(replies.len());
        for ((reply, grant), hold) in replies.into_iter().zip(made_held) {
            let held = if hold { fs.template_if_held(session, &reply).await? } else { None };
            let (grant, held) = (grant.map(Into::into), held.as_ref().map(Into::into));
            answers.push(ExecuteReply { grant, held, ..(&reply).into() });
        }
        Ok(ApplyReply { replies: answers, error: error.map(to_detail), full: self.cluster.disk.is_low() })
    }
}

/// The client tells a part when the fate of those before it is known: `settled` is the first one.
fn decode(session: SessionId, logged: Logged, settled: bool) -> FsResult<command::Request> {
    let change = required(logged.change, "change")?;
    Ok(command::Request {
        session,
        slot: 0,
        number: change.number,
        credential: credential(change.credential)?,
        op: required(change.op, "op")?.try_into()?,
        hold: change.hold,
        open: change.open_number,
        logged: Some(command::Logged {
            fid: logged.fid.map(|f| fid(Some(f), "fid")).transpose()?,
            at: required(logged.at, "at")?.try_into()?,
            settled,
        }),
    })
}
