//! Every bound that a peer or a user can meet, in one place, with its unit and its reason.

/// Longest name of one directory entry, in bytes (POSIX `NAME_MAX` on Linux).
pub const NAME_BYTES_MAX: usize = 255;
/// Longest path or symbolic-link target, in bytes, the terminating NUL included (Linux `PATH_MAX`).
pub const PATH_BYTES_MAX: usize = 4096;
/// Longest extended attribute value, in bytes (Linux `XATTR_SIZE_MAX`).
pub const XATTR_VALUE_BYTES_MAX: usize = 64 << 10;
/// Longest list of extended attribute names, in bytes, each with its NUL (Linux `XATTR_LIST_MAX`).
pub const XATTR_LIST_BYTES_MAX: usize = 64 << 10;
/// Most files in one report of access times: one group of commits at the MDS.
pub const READ_DONE_MAX: usize = 512;
/// Most entries in one ACL: as many as Linux passes on to a FUSE file system (a page of 4 KiB).
pub const ACL_ENTRIES_MAX: usize = 511;
/// Longest file system name, in bytes. Eight as in Lustre, so that it fits Lustre's target names and FSx's mount names.
pub const FS_NAME_BYTES_MAX: usize = 8;
/// Longest pool name, in bytes (Lustre: 15).
pub const POOL_NAME_BYTES_MAX: usize = 15;

/// Largest file offset plus one. Offsets travel as `i64` through the kernel.
pub const FILE_SIZE_MAX: u64 = i64::MAX as u64;
/// Most hard links of one file. Bounded only by the counter; Lustre's back end stops at 65,000.
pub const LINK_COUNT_MAX: u32 = u32::MAX - 1;

/// Smallest stripe size and the unit of stripe sizes and component ends, in bytes (Lustre: 64 KiB).
pub const STRIPE_SIZE_UNIT: u32 = 64 << 10;
/// Stripe size where nothing was said, in bytes (FSx: 1 MiB).
pub const STRIPE_SIZE_DEFAULT: u32 = 1 << 20;
/// Largest stripe size, in bytes. Lustre's field is 32 bits wide and a multiple of 64 KiB.
pub const STRIPE_SIZE_MAX: u32 = u32::MAX - (STRIPE_SIZE_UNIT - 1);
/// Most stripes in one component (Lustre: 2000).
pub const STRIPE_COUNT_MAX: u16 = 2000;
/// Most components in one layout. Keeps a layout within one extended attribute.
pub const COMPONENT_COUNT_MAX: usize = 64;

/// Largest and usual chunk, in bytes: the unit of compression, checksum and disk space on an OST. LZ4 gains little
/// above it (ratio 1.88 at 128 KiB, 1.95 at 1 MiB) and a partial overwrite rewrites all of it.
pub const CHUNK_BYTES_MAX: u32 = 128 << 10;
/// log2 of [`CHUNK_BYTES_MAX`].
pub const CHUNK_LOG2_MAX: u8 = 17;
/// log2 of the smallest chunk: 64 KiB, for stripes that are an odd multiple of [`STRIPE_SIZE_UNIT`].
pub const CHUNK_LOG2_MIN: u8 = 16;
/// Unit of space on an OST, in bytes. Stored chunks start and end on it.
pub const BLOCK_BYTES: u32 = 4096;

/// Most payload bytes in one bulk RPC.
pub const BULK_BYTES_MAX: usize = 4 << 20;
/// Most files in one Close.
pub const CLOSES_MAX: usize = 4096;
/// Most objects in one page of a list of objects.
pub const LIST_OBJECTS_MAX: usize = 4096;
/// Most changes in one Apply.
pub const LOG_CHANGES_MAX: usize = 1024;
/// Most directories in one Release.
pub const RELEASES_MAX: usize = 4096;
/// Most Reads in one ReadMany.
pub const READ_MANY_MAX: usize = 64;
/// Most bytes that the Reads of one ReadMany may ask for together.
pub const READ_MANY_BYTES_MAX: usize = 512 << 10;
/// Most Writes in one WriteMany.
pub const WRITE_MANY_MAX: usize = 64;
/// Most parts of each of them: what is not payload fits beside it in a message.
pub const WRITE_MANY_PARTS_MAX: usize = 8;
/// Most payload bytes of all Writes of one WriteMany.
pub const WRITE_MANY_BYTES_MAX: usize = 1 << 20;
/// Most changes in one ExecuteMany.
pub const EXECUTE_MANY_MAX: usize = 128;
/// Bytes of the requests in one ExecuteMany, unless a single one has more (its user is in many groups).
pub const EXECUTE_MANY_BYTES_MAX: usize = 256 << 10;
/// Largest gRPC message either side accepts, in bytes: a full bulk payload and its headers.
pub const MESSAGE_BYTES_MAX: usize = BULK_BYTES_MAX + (64 << 10);
/// Most bytes in one page of a directory listing.
pub const READDIR_BYTES_MAX: usize = 1 << 20;
/// Most entries in one page of a directory listing.
pub const READDIR_ENTRIES_MAX: u32 = 4096;
/// Most directories in one `ReadDirs`.
pub const READ_DIRS_MAX: usize = 64;
/// Most supplementary groups in one credential (Linux `NGROUPS_MAX`).
pub const GROUPS_MAX: usize = 65536;
/// Request slots of one session: how many changes a client may have unanswered at once. One reply record is kept per slot.
pub const SESSION_SLOTS_MAX: u32 = 256;
/// Requests about locks that one session may have unanswered. Waiting for a lock does not count: it takes no slot.
pub const LOCK_SLOTS_MAX: u32 = 64;
/// Most locks one session may hold. A client says all of them again in one message after a restart of the MDS.
pub const SESSION_LOCKS_MAX: usize = 65_536;
/// Most locks on one file, of all owners. Each request looks at all of them.
pub const FILE_LOCKS_MAX: usize = 65_536;
/// Most requests of one session that may wait for locks at a time.
pub const SESSION_LOCK_WAITERS_MAX: usize = 4096;
/// Most requests that may wait for locks of one file. Each lock that goes looks at all of them.
pub const FILE_LOCK_WAITERS_MAX: usize = 16_384;
/// Most bytes of one lock in the message that says all of them again.
const RESTATED_LOCK_BYTES: usize = 60;
/// Writers of expired sessions that are kept from writing. The oldest are forgotten first.
pub const ENDED_WRITERS_MAX: usize = 65_536;
/// Links to data repositories of one file system. (FSx: 8.) Every worker's list and every overlap check has all of them.
pub const REPOSITORIES_MAX: usize = 256;
/// Longest key of an object, in bytes (S3).
pub const KEY_BYTES_MAX: usize = 1024;
/// Longest URL of a repository, in bytes.
pub const URL_BYTES_MAX: usize = 1024;
/// Longest endpoint of a store, in bytes.
pub const ENDPOINT_BYTES_MAX: usize = 256;
/// Longest name of a region, in bytes.
pub const REGION_BYTES_MAX: usize = 64;
/// Longest name of credentials, in bytes.
pub const PROFILE_BYTES_MAX: usize = 64;
/// Longest ETag, in bytes.
pub const ETAG_BYTES_MAX: usize = 256;
/// MiB of an imported file per stripe where nothing was said (FSx).
pub const CHUNK_MIB_DEFAULT: u32 = 1024;
/// Most MiB of an imported file per stripe (FSx).
pub const CHUNK_MIB_MAX: u32 = 512_000;
/// Most objects in one page of an import: one change of the MDS.
pub const IMPORT_PAGE_OBJECTS_MAX: usize = 1000;
/// Most ranges of keys that are left of an import: as many as a worker lists at once, and some that it has begun between them.
pub const IMPORT_RANGES_MAX: usize = 32;
/// Most bytes of keys, ETags and targets in one page of an import.
pub const IMPORT_PAGE_BYTES_MAX: usize = 2 << 20;
/// Most keys in one message of what changed in a bucket: one change of the MDS.
pub const EVENTS_MAX: usize = 1000;
/// Most conflicts in one page of their list.
pub const CONFLICTS_PAGE_MAX: u32 = 1000;
/// Most users of a changelog.
pub const CHANGELOG_USERS_MAX: usize = 64;
/// Longest name of a user of a changelog (Lustre's).
pub const CHANGELOG_NAME_MAX: usize = 15;
/// Most records of a changelog that are kept. The user that is furthest behind is ended then.
pub const CHANGELOG_RECORDS_MAX: u64 = 4 << 20;
/// Most records in one answer.
pub const CHANGELOG_PAGE_MAX: u32 = 4096;
/// Longest name of a source of events, in bytes.
pub const EVENT_SOURCE_BYTES_MAX: usize = 1024;
/// Seconds between two comparisons of bucket and directory where nothing was said.
pub const SYNC_INTERVAL_S_DEFAULT: u32 = 3600;
/// Fewest seconds between two comparisons.
pub const SYNC_INTERVAL_S_MIN: u32 = 60;
/// Most seconds between two comparisons.
pub const SYNC_INTERVAL_S_MAX: u32 = 604_800;
/// Largest object that is stored, in bytes (FSx, S3).
pub const EXPORT_BYTES_MAX: u64 = 5 << 40;
/// Most numbers of assignments that were not reported that are kept for one file.
pub const EARLIER_EXPORTS_MAX: usize = 4;
/// How many of the objects that an import skipped are listed. The others are counted.
pub const IMPORT_FIRST_SKIPPED_MAX: usize = 100;
/// How much of what could not be exported so far is listed of each link.
pub const EXPORT_FAILING_MAX: usize = 100;
/// Longest message of a worker that is kept, in bytes. Longer ones are cut.
pub const REPOSITORY_MESSAGE_BYTES_MAX: usize = 1024;
/// Longest reason why an object was skipped, in bytes. Longer ones are cut.
pub const SKIPPED_MESSAGE_BYTES_MAX: usize = 256;
/// Most loaded ranges of one file. Where more would come, what lies between is loaded as well.
pub const LOADED_RANGES_MAX: usize = 4096;
/// Most bytes that one assignment fetches.
pub const FETCH_BYTES_MAX: u64 = 8 << 20;
/// Most OSTs that a range of [`FETCH_BYTES_MAX`] lies on.
pub const FILLED_OSTS_MAX: usize = (FETCH_BYTES_MAX >> CHUNK_LOG2_MIN) as usize;
/// Most assignments of one file at a time.
pub const FILE_ASSIGNMENTS_MAX: usize = 256;
/// Most assignments that one Take gives.
pub const TAKE_MAX: u32 = 64;
/// Most assignments that one worker has.
pub const ASSIGNMENTS_MAX: usize = 1024;
/// Longest a Load or Take waits before it is answered with what there is, in milliseconds.
pub const REPOSITORY_HOLD_MS_MAX: u32 = 30_000;

/// Most paths of one task (FSx).
pub const TASK_PATHS_MAX: usize = 100;
/// Most days since the last use that a release asks for.
pub const TASK_DAYS_MAX: u32 = 36_500;
/// Most tasks that wait for their turn.
pub const TASKS_PENDING_MAX: usize = 64;
/// Most tasks that are over and still listed. The oldest go first.
pub const TASKS_KEPT_MAX: usize = 512;
/// How long a task that is over is listed, in seconds (FSx: 14 days).
pub const TASKS_KEPT_S: i64 = 14 * 86_400;
/// Most bytes of paths that a report lists. What fails beyond is counted only.
pub const REPORT_BYTES_MAX: u64 = 16 << 20;
/// Most bytes of a report in one answer.
pub const REPORT_PAGE_BYTES_MAX: usize = 1 << 20;

/// Most OSTs in one cluster. Below Lustre's limit of the layout format (0xffdf).
pub const OST_COUNT_MAX: u32 = 8150;

const _: () = assert!(ENDED_WRITERS_MAX * size_of::<u64>() < MESSAGE_BYTES_MAX);
const _: () = assert!(SESSION_LOCKS_MAX * RESTATED_LOCK_BYTES < MESSAGE_BYTES_MAX);
const _: () = assert!(FETCH_BYTES_MAX.is_multiple_of(CHUNK_BYTES_MAX as u64));
const _: () = assert!(1 << CHUNK_LOG2_MAX == CHUNK_BYTES_MAX);
const _: () = assert!(1 << CHUNK_LOG2_MIN == STRIPE_SIZE_UNIT);
const _: () = assert!(CHUNK_BYTES_MAX.is_multiple_of(BLOCK_BYTES));
const _: () = assert!(BULK_BYTES_MAX.is_multiple_of(CHUNK_BYTES_MAX as usize));
