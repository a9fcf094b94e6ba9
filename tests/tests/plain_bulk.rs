//! The bulk methods, Read and Write, as a caller meets them who has only the `.proto` files: an ordinary tonic client at
//! its largest messages and smallest windows, and gRPC by hand for what tonic cannot be made to do.

use std::iter::repeat;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use rand::Rng;
use sateen_proto::oss::object_store_client::ObjectStoreClient;
use sateen_proto::oss::read_outcome::Outcome;
use sateen_proto::oss::{ObjectId, ReadManyRequest, ReadReply, ReadRequest, WriteReply, WriteRequest};
use sateen_tests::memory::{mib, resident};
use sateen_tests::plain::{CHUNK, new_object, oss_of, raw, read, write};
use sateen_tests::rng::{noise, pattern, seeded};
use sateen_tests::rpc::block_on;
use sateen_tests::wire::{Answer, READ, WRITE, Wire, framed, framed_bytes};
use sateen_tests::{Cluster, ClusterSpec};
use tonic::Code;
use tonic::transport::Endpoint;

/// Most payload of one message.
const BULK: usize = 4 << 20;

/// Room for a message of tonic's: the payload and what describes it.
const MESSAGE: usize = BULK + (1 << 20);

/// Requests that are broken off.
const BROKEN_OFF: usize = 100;

/// What the OSS may keep in memory of [`BROKEN_OFF`] requests, which had several times as much together.
const KEPT_MAX: u64 = 64 << 20;

/// gRPC statuses that say that the caller's time is over.
const OVER: [i32; 2] = [Code::DeadlineExceeded as i32, Code::Cancelled as i32];

/// Whole chunks of `bytes` from the start of an object.
fn chunks(ost: u32, object: &ObjectId, bytes: &[u8]) -> WriteRequest {
    let parts = bytes.chunks(CHUNK).enumerate().map(|(i, data)| raw((i * CHUNK) as u64, data, true)).collect();
    write(ost, object, parts, bytes.to_vec())
}

#[track_caller]
fn good<M: Message + Default>(answer: Answer) -> M {
    assert_eq!(answer.status, Some(0), "{}", answer.said);
    M::decode(answer.message).expect("the message of the protocol")
}

/// An object that nothing was written to, and where it is.
struct Place {
    oss: SocketAddr,
    ost: u32,
    object: ObjectId,
}

impl Place {
    async fn connect(&self) -> Wire {
        Wire::connect(self.oss, 1 << 20).await
    }

    /// A request that writes `bytes` from the start of the object on.
    fn chunks(&self, bytes: &[u8]) -> WriteRequest {
        chunks(self.ost, &self.object, bytes)
    }

    /// A request that reads the first `len` bytes.
    fn read(&self, len: usize) -> ReadRequest {
        read(self.ost, &self.object, 0, len)
    }

    async fn write(&self, wire: &Wire, bytes: &[u8]) {
        let _: WriteReply = good(wire.exchange(WRITE, framed(&self.chunks(bytes)), repeat(50_000)).await);
    }

    /// What the object holds, through a connection of its own.
    async fn stored(&self, len: usize) -> Bytes {
        let wire = Wire::connect(self.oss, 8 << 20).await;
        good::<ReadReply>(wire.exchange(READ, framed(&self.read(len)), repeat(usize::MAX)).await).payload
    }
}

/// Runs `test` with an object of a cluster of its own, whose servers must be there in the end. `test` also gets the
/// process of the first OSS.
fn with_object(spec: ClusterSpec, test: impl AsyncFnOnce(Place, u32)) {
    let mut cluster = Cluster::start(spec);
    block_on(async {
        let mds = cluster.mds_address();
        let (ost, object) = new_object(mds, b"bulk").await;
        let oss = oss_of(mds, ost).await;
        test(Place { oss, ost, object }, cluster.oss_id(0)).await;
    });
    cluster.assert_runs();
}

#[test]
fn tonic_writes_and_reads_4_mib_through_windows_of_any_size() {
    let mut rng = seeded("bulk-tonic");
    with_object(ClusterSpec::new("bulk-tonic"), async |place, _| {
        for window in [1_000, 65_535, 8 << 20] {
            let endpoint = Endpoint::from_shared(format!("http://{}", place.oss)).expect("an address");
            let endpoint = endpoint.initial_stream_window_size(window).initial_connection_window_size(window);
            let channel = endpoint.connect().await.expect("connect");
            let mut store = ObjectStoreClient::new(channel).max_decoding_message_size(MESSAGE);
            let bytes = noise(&mut rng, BULK);
            store.write(place.chunks(&bytes)).await.expect("Write");
            for sealed in [false, true] {
                let request = ReadRequest { sealed, ..place.read(BULK) };
                let reply = store.read(request).await.expect("Read").into_inner();
                assert!(reply.payload == bytes, "window {window}, sealed {sealed}: other bytes came back");
                assert_eq!(reply.object_size, BULK as u64);
                assert_eq!(reply.parts.iter().map(|p| p.raw_len as usize).sum::<usize>(), BULK);
            }
        }
    });
}

#[test]
fn tonic_reads_many_ranges_in_one_call_and_each_has_its_own_outcome() {
    with_object(ClusterSpec::new("bulk-many"), async |place, _| {
        let mut store = ObjectStoreClient::connect(format!("http://{}", place.oss)).await.expect("connect");
        let bytes = pattern(1, 3 * CHUNK);
        store.write(place.chunks(&bytes)).await.expect("Write");
        let small =
            |offset: usize, len| ReadRequest { sealed: false, ..read(place.ost, &place.object, offset as u64, len) };
        let ranges = [(0, 1), (CHUNK - 5, 10), (3 * CHUNK - 1, 4096), (10 * CHUNK, 7), (4096, 4096)];
        let mut reads: Vec<_> = ranges.iter().map(|(offset, len)| small(*offset, *len)).collect();
        reads.insert(2, ReadRequest { ost: 4000, ..small(0, 1) });
        let reply = store.read_many(ReadManyRequest { reads: reads.clone() }).await.expect("ReadMany").into_inner();
        let mut outcomes: Vec<_> = reply.outcomes.into_iter().map(|o| o.outcome.expect("an outcome")).collect();
        assert_eq!(outcomes.len(), reads.len());
        match outcomes.remove(2) {
            Outcome::Error(detail) => assert!(detail.message.contains("not served here"), "{detail:?}"),
            Outcome::Reply(reply) => panic!("an OST that is not there answered {reply:?}"),
        }
        let mut payload = reply.payload;
        for ((offset, len), outcome) in ranges.into_iter().zip(outcomes) {
            let Outcome::Reply(reply) = outcome else { panic!("{len} bytes at {offset}: {outcome:?}") };
            let stored: u32 = reply.parts.iter().map(|p| p.stored_len).sum();
            let expected = &bytes[offset.min(bytes.len())..(offset + len).min(bytes.len())];
            assert!(payload.split_to(stored as usize) == expected, "{len} bytes at {offset}");
            assert_eq!(reply.parts.iter().map(|p| p.raw_len as usize).sum::<usize>(), len);
        }
        assert!(payload.is_empty(), "{} bytes of nobody", payload.len());
        let whole = ReadRequest { sealed: true, ..small(0, 1) };
        for refused in [vec![], vec![small(0, 1); 65], vec![small(0, 256 << 10); 3], vec![whole]] {
            let error = store.read_many(ReadManyRequest { reads: refused }).await.expect_err("refused");
            assert_eq!(error.code(), tonic::Code::InvalidArgument, "{error}");
        }
    });
}

#[test]
fn a_request_may_come_in_data_frames_of_any_size() {
    let mut rng = seeded("bulk-frames");
    with_object(ClusterSpec::new("bulk-frames"), async |place, _| {
        let wire = place.connect().await;
        // One byte at a time through all that comes before the payload, and on.
        let slow_start: Vec<usize> = std::iter::repeat_n(1, 600).chain([CHUNK - 1, 1, 2, 3]).collect();
        let random: Vec<usize> = (0..64).map(|_| rng.random_range(1..40_000)).collect();
        for (n, sizes) in [slow_start, vec![7_777], vec![16_384], vec![1 << 20], random].iter().enumerate() {
            let bytes = pattern(n as u64, 3 * CHUNK);
            let request = framed(&place.chunks(&bytes));
            let written: WriteReply = good(wire.exchange(WRITE, request, sizes.iter().copied().cycle()).await);
            assert_eq!(written.verifier.len(), 16);
            let request = framed(&place.read(bytes.len()));
            let reply: ReadReply = good(wire.exchange(READ, request, repeat(1)).await);
            assert!(reply.payload == bytes, "frames {n}: other bytes came back");
        }
    });
}

#[test]
fn unknown_fields_are_skipped_wherever_they_stand() {
    with_object(ClusterSpec::new("bulk-unknown"), async |place, _| {
        let wire = place.connect().await;
        // Field 99 as a number, 100 as bytes, 101 as 8 bytes: of a release to come.
        let unknown = [&[0x98, 0x06, 0x7f, 0xa2, 0x06, 3, 1, 2, 3, 0xa9, 0x06][..], &[9; 8]].concat();
        for n in 0..3 {
            let bytes = pattern(n, 2 * CHUNK);
            let request = place.chunks(&bytes);
            let head = WriteRequest { payload: Bytes::new(), ..request.clone() }.encode_to_vec();
            let payload = WriteRequest { payload: request.payload, ..Default::default() }.encode_to_vec();
            let message = match n {
                0 => [&unknown[..], &head, &payload].concat(),
                1 => [&head[..], &unknown, &payload].concat(),
                _ => [&payload[..], &head, &unknown].concat(),
            };
            let _: WriteReply = good(wire.exchange(WRITE, framed_bytes(&message), repeat(50_000)).await);
            let message = [&unknown[..], &place.read(bytes.len()).encode_to_vec()].concat();
            let reply: ReadReply = good(wire.exchange(READ, framed_bytes(&message), repeat(50_000)).await);
            assert!(reply.payload == bytes, "order {n}: other bytes came back");
        }
    });
}

#[test]
fn compressed_and_misframed_messages_are_refused_with_a_status() {
    with_object(ClusterSpec::new("bulk-misframed"), async |place, _| {
        let wire = place.connect().await;
        let old = pattern(1, CHUNK);
        place.write(&wire, &old).await;
        let new = framed(&place.chunks(&pattern(2, CHUNK)));
        let changed = |at: usize, byte: u8| {
            let mut bytes = new.to_vec();
            bytes[at] = byte;
            Bytes::from(bytes)
        };
        let twice = Bytes::from([&new[..], &new[..]].concat());
        let lies = [
            ("the compressed flag", changed(0, 1)),
            ("a flag that does not exist", changed(0, 7)),
            ("a length of 4 GiB", changed(1, 0xff)),
            ("a length that is too short", changed(4, new[4].wrapping_sub(1))),
            ("a message that ends early", new.slice(..new.len() - 1)),
            ("a message that ends in its prefix", new.slice(..3)),
            ("no message", Bytes::new()),
            ("two messages", twice),
            ("noise", Bytes::from(pattern(3, 1_000))),
        ];
        for (what, bytes) in lies {
            for method in [WRITE, READ] {
                let answer = wire.exchange(method, bytes.clone(), repeat(10_000)).await;
                assert!(answer.status.is_some_and(|s| s != 0), "{what} to {method}: {answer:?}");
            }
        }
        let mut gzip = wire.call(WRITE, &[("grpc-encoding", "gzip")]).await;
        gzip.send(changed(0, 1), repeat(10_000)).await;
        let answer = gzip.answer().await;
        assert!(answer.status.is_some_and(|s| s != 0), "{answer:?}");
        assert!(place.stored(CHUNK).await == old, "a refused request changed the object");
    });
}

#[test]
fn requests_that_are_broken_off_change_nothing_and_leave_no_memory_behind() {
    with_object(ClusterSpec { oss: 1, ..ClusterSpec::new("bulk-cancel") }, async |place, oss_id| {
        let old = pattern(1, BULK);
        let wire = Wire::connect(place.oss, 100_000).await;
        place.write(&wire, &old).await;
        let new = framed(&place.chunks(&pattern(2, BULK)));
        let want = framed(&place.read(BULK));
        let before = resident(oss_id);
        for n in 0..BROKEN_OFF {
            // By a reset of the stream, and by the end of the whole connection.
            let own = Wire::connect(place.oss, 100_000).await;
            let wire = if n % 10 == 0 { &own } else { &wire };
            let mut half = wire.call(WRITE, &[]).await;
            half.send_part(new.slice(..new.len() * (n % 10) / 10)).await;
            let mut reading = wire.call(READ, &[]).await;
            reading.send(want.clone(), repeat(usize::MAX)).await;
            // The answer has begun, and its reader goes away.
            let stuck = reading.stall().await;
            half.cancel();
            drop(stuck);
        }
        drop(wire);
        assert!(place.stored(BULK).await == old, "a request that was broken off changed the object");
        let after = resident(oss_id);
        eprintln!("{BROKEN_OFF} writes and reads broken off: {:.0} MiB, then {:.0} MiB", mib(before), mib(after));
        assert!(after <= before + KEPT_MAX, "{:.0} MiB, then {:.0} MiB", mib(before), mib(after));
    });
}

#[test]
fn a_deadline_that_passes_is_told_and_the_request_is_given_up() {
    with_object(ClusterSpec::new("bulk-deadline"), async |place, _| {
        let wire = place.connect().await;
        let old = pattern(1, CHUNK);
        place.write(&wire, &old).await;

        // A request that never comes to its end.
        let new = framed(&place.chunks(&pattern(2, CHUNK)));
        let mut endless = wire.call(WRITE, &[("grpc-timeout", "200m")]).await;
        endless.send_part(new.slice(..new.len() / 2)).await;
        let answer = tokio::time::timeout(Duration::from_secs(30), endless.answer()).await;
        let answer = answer.expect("a deadline of 0.2 s is told within 30 s");
        assert!(answer.status.is_some_and(|s| OVER.contains(&s)), "{answer:?}");

        // One that has no time at all, and whose last byte never comes.
        let mut late = wire.call(WRITE, &[("grpc-timeout", "1n")]).await;
        late.send(new.slice(..new.len() - 1), repeat(50_000)).await;
        let answer = late.answer().await;
        assert!(answer.status.is_some_and(|s| s != 0), "{answer:?}");
        assert!(place.stored(CHUNK).await == old, "a request without time changed the object");
    });
}
