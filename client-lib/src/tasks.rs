//! Tasks of data repositories, as an administrator starts and sees them, and as a worker writes their reports.

use sateen_proto::mds::repositories_client::RepositoriesClient;
use sateen_proto::{convert, mds};
use sateen_types::limits::{MESSAGE_BYTES_MAX, TASKS_KEPT_MAX, TASKS_PENDING_MAX};
use sateen_types::repository::{AutoRelease, Task, TaskId, TaskSpec};
use sateen_types::{FsName, FsResult};
use tonic::transport::Channel;

use crate::admin::Admin;
use crate::client::Client;
use crate::repository::Shift;

impl Admin {
    /// Queues a task.
    pub async fn start_task(&self, fs: &FsName, spec: &TaskSpec) -> FsResult<Task> {
        let request = mds::StartTaskRequest { fs_name: fs.to_string(), spec: Some(spec.into()) };
        let mut client = self.tasks();
        self.call(async move { client.start_task(request).await }).await?.try_into()
    }

    /// One task. `NotFound` if it is not listed any more.
    pub async fn get_task(&self, fs: &FsName, id: TaskId) -> FsResult<Task> {
        let request = mds::GetTaskRequest { fs_name: fs.to_string(), id: id.0 };
        let mut client = self.tasks();
        self.call(async move { client.get_task(request).await }).await?.try_into()
    }

    /// Every task, in the order in which they were made; of each the first path only.
    pub async fn list_tasks(&self, fs: &FsName) -> FsResult<Vec<Task>> {
        let request = mds::ListTasksRequest { fs_name: fs.to_string() };
        let mut client = self.tasks();
        let reply = self.call(async move { client.list_tasks(request).await }).await?;
        let most = TASKS_KEPT_MAX + 2 * TASKS_PENDING_MAX;
        if reply.tasks.len() > most {
            return Err(convert::bad("tasks", format_args!("{}, at most {most}", reply.tasks.len())));
        }
        reply.tasks.into_iter().map(TryInto::try_into).collect()
    }

    /// Ends a task early. `Invalid` for one that is over.
    pub async fn cancel_task(&self, fs: &FsName, id: TaskId) -> FsResult<Task> {
        let request = mds::CancelTaskRequest { fs_name: fs.to_string(), id: id.0 };
        let mut client = self.tasks();
        self.call(async move { client.cancel_task(request).await }).await?.try_into()
    }

    /// When files are released by themselves.
    pub async fn auto_release(&self, fs: &FsName) -> FsResult<AutoRelease> {
        let request = mds::GetAutoReleaseRequest { fs_name: fs.to_string() };
        let mut client = self.tasks();
        self.call(async move { client.get_auto_release(request).await }).await?.try_into()
    }

    /// Sets when files are released by themselves.
    pub async fn set_auto_release(&self, fs: &FsName, marks: AutoRelease) -> FsResult<AutoRelease> {
        let request = mds::SetAutoReleaseRequest { fs_name: fs.to_string(), auto_release: Some(marks.into()) };
        let mut client = self.tasks();
        self.call(async move { client.set_auto_release(request).await }).await?.try_into()
    }

    fn tasks(&self) -> RepositoriesClient<Channel> {
        RepositoriesClient::new(self.channel()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }
}

impl Client {
    /// Lines of the report that is written under the assignment `number`, behind the line `after` (0: from the first); the last of them,
    /// and whether more follow. `Stale` if the assignment is not this worker's any more.
    pub async fn read_report(&self, shift: Shift, number: u64, after: u64) -> FsResult<(Vec<u8>, u64, bool)> {
        let asked = self.inner.session.ask_repositories_as(shift.0, |mut client, session_id| {
            let request = mds::ReadReportRequest { session_id, number, after };
            async move { client.read_report(request).await }
        });
        let reply = asked.await?;
        if reply.more && reply.last <= after {
            return Err(convert::bad("last", format_args!("{} does not follow {after}", reply.last)));
        }
        Ok((reply.lines, reply.last, reply.more))
    }
}
