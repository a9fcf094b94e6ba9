//! Events of buckets in JSON: which keys to look at. Pure and bounded: whoever can send to a queue or a webhook may write anything.
//!
//! Read are the records of Amazon S3, which MinIO, Ceph RGW, RustFS and others send as well, the same inside of a notification of
//! SNS, and events of EventBridge. What an event says of its object is not looked at: the object itself is asked for.

use percent_encoding::percent_decode;
use sateen_types::limits::KEY_BYTES_MAX;
use serde::{Deserialize, Deserializer};

/// Longest text that is read, in bytes: the largest message of SQS and SNS.
pub const EVENT_BYTES_MAX: usize = 1 << 20;
/// Most records in one text. Stores send one to a few.
const RECORDS_MAX: usize = 10_000;

/// A key of a bucket under which something may have changed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Touched {
    /// Name of the bucket.
    pub bucket: String,
    /// The whole key, 1 to 1024 bytes.
    pub key: Vec<u8>,
}

/// What was read of one text.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// In the order of the text; a key may be there more than once.
    pub touched: Vec<Touched>,
    /// Records that tell of nothing that was made or removed, or name no key that could be.
    pub ignored: u64,
    /// The sender asks whether anybody is there.
    pub test: bool,
}

#[derive(Deserialize)]
struct Text {
    /// `null` where there are none, as MinIO writes it now and then to show that it is there.
    #[serde(rename = "Records", default, deserialize_with = "present")]
    records: Option<Option<Vec<Record>>>,
    /// Of Amazon's `s3:TestEvent`.
    #[serde(rename = "Event", default)]
    event: Option<String>,
    /// Of SNS.
    #[serde(rename = "Type", default)]
    kind: Option<String>,
    #[serde(rename = "Message", default)]
    message: Option<String>,
    /// Of EventBridge.
    #[serde(rename = "detail-type", default)]
    detail_type: Option<String>,
    #[serde(default)]
    detail: Option<Place>,
}

#[derive(Deserialize)]
struct Record {
    #[serde(rename = "eventName", default)]
    name: Option<String>,
    #[serde(default)]
    s3: Option<Place>,
}

#[derive(Deserialize)]
struct Place {
    #[serde(default)]
    bucket: Option<Bucket>,
    #[serde(default)]
    object: Option<Object>,
}

#[derive(Deserialize)]
struct Bucket {
    #[serde(default)]
    name: Option<String>,
}

#[derive(Deserialize)]
struct Object {
    #[serde(default)]
    key: Option<String>,
}

fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Option<Vec<Record>>>, D::Error> {
    Option::deserialize(from).map(Some)
}

/// Reads a text. The error says what it is not.
pub fn parse(text: &[u8]) -> Result<Told, String> {
    let outer = read(text)?;
    match (&outer.kind, &outer.message) {
        // Of SNS, once: a notification in a notification is nobody's.
        (Some(kind), Some(message)) if kind == "Notification" => told(read(message.as_bytes())?),
        (Some(kind), Some(_)) if kind == "SubscriptionConfirmation" => {
            Err("a request of SNS to confirm a subscription: subscribe an SQS queue instead".to_owned())
        }
        _ => told(outer),
    }
}

fn read(text: &[u8]) -> Result<Text, String> {
    if text.len() > EVENT_BYTES_MAX {
        return Err(format!("{} bytes, at most {EVENT_BYTES_MAX} are read", text.len()));
    }
    serde_json::from_slice(text).map_err(|e| format!("no S3 event: {e}"))
}

fn told(text: Text) -> Result<Told, String> {
    let mut told = Told::default();
    if let Some(records) = text.records {
        let records = records.unwrap_or_default();
        if records.len() > RECORDS_MAX {
            return Err(format!("{} records, at most {RECORDS_MAX} are read", records.len()));
        }
        for record in records {
            let matters = record.name.as_deref().is_some_and(matters);
            match record.s3.filter(|_| matters).and_then(|place| touched(place, true)) {
                Some(touched) => told.touched.push(touched),
                None => told.ignored += 1,
            }
        }
        return Ok(told);
    }
    if let Some(kind) = text.detail_type {
        let matters = matches!(kind.as_str(), "Object Created" | "Object Deleted" | "Object Restore Completed");
        match text.detail.filter(|_| matters).and_then(|place| touched(place, false)) {
            Some(touched) => told.touched.push(touched),
            None => told.ignored += 1,
        }
        return Ok(told);
    }
    if text.event.as_deref() == Some("s3:TestEvent") {
        return Ok(Told { test: true, ..told });
    }
    Err("no S3 event: neither Records nor detail-type".to_owned())
}

/// Whether an event can mean that something else is under the key, or that it can be read now. (Not: reading, tagging, ACLs. Our own
/// looks at objects are events as well.)
fn matters(name: &str) -> bool {
    let name = name.strip_prefix("s3:").unwrap_or(name);
    [
        "ObjectCreated:",
        "ObjectRemoved:",
        "LifecycleExpiration:",
        "ObjectLifecycle:Expiration:",
        "ObjectRestore:Completed",
    ]
    .iter()
    .any(|kind| name.starts_with(kind))
}

/// Keys are written as in HTML forms in records, and as they are by EventBridge.
fn touched(place: Place, encoded: bool) -> Option<Touched> {
    let (bucket, key) = (place.bucket?.name?, place.object?.key?);
    let key = match encoded {
        true => percent_decode(key.replace('+', " ").as_bytes()).collect(),
        false => key.into_bytes(),
    };
    (!bucket.is_empty() && (1..=KEY_BYTES_MAX).contains(&key.len())).then_some(Touched { bucket, key })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As Amazon documents it, shortened.
    const AMAZON: &str = r#"{"Records":[{"eventVersion":"2.1","eventSource":"aws:s3","awsRegion":"us-west-2",
        "eventTime":"1970-01-01T00:00:00.000Z","eventName":"ObjectCreated:Put","userIdentity":{"principalId":"A"},
        "s3":{"s3SchemaVersion":"1.0","configurationId":"c","bucket":{"name":"amzn-s3-demo-bucket",
        "ownerIdentity":{"principalId":"A"},"arn":"arn:aws:s3:::amzn-s3-demo-bucket"},
        "object":{"key":"Happy+Face%2B%C3%BC.jpg","size":1024,"eTag":"d41d8cd98f00b204e9800998ecf8427e",
        "sequencer":"0055AED6DCD90281E5"}}}]}"#;

    fn keys(text: &str) -> Vec<String> {
        let told = parse(text.as_bytes()).unwrap_or_else(|e| panic!("{text}: {e}"));
        told.touched.into_iter().map(|t| format!("{}/{}", t.bucket, String::from_utf8_lossy(&t.key))).collect()
    }

    fn record(name: &str, bucket: &str, key: &str) -> serde_json::Value {
        serde_json::json!({"eventName": name, "s3": {"bucket": {"name": bucket}, "object": {"key": key}}})
    }

    #[test]
    fn every_sender_names_the_same_object() {
        let expected = ["amzn-s3-demo-bucket/Happy Face+\u{fc}.jpg"];
        assert_eq!(keys(AMAZON), expected);
        let minio = AMAZON.replace("\"ObjectCreated:Put\"", "\"s3:ObjectCreated:CompleteMultipartUpload\"").replacen(
            '{',
            r#"{"EventName":"s3:ObjectCreated:CompleteMultipartUpload","Key":"amzn-s3-demo-bucket/Happy","#,
            1,
        );
        assert_eq!(keys(&minio), expected);
        let notification = serde_json::json!({"Type": "Notification", "MessageId": "m", "TopicArn": "t",
            "Message": AMAZON, "Signature": "s"});
        assert_eq!(keys(&notification.to_string()), expected);
        let bridge = serde_json::json!({"version": "0", "detail-type": "Object Created", "source": "aws.s3",
            "detail": {"version": "0", "bucket": {"name": "amzn-s3-demo-bucket"},
                       "object": {"key": "Happy Face+\u{fc}.jpg", "size": 5}, "reason": "PutObject"}});
        assert_eq!(keys(&bridge.to_string()), expected);
    }

    #[test]
    fn only_what_was_made_or_removed_is_looked_at() {
        for name in [
            "ObjectCreated:Copy",
            "s3:ObjectRemoved:Delete",
            "ObjectRemoved:DeleteMarkerCreated",
            "LifecycleExpiration:Delete",
            "ObjectRestore:Completed",
        ] {
            assert_eq!(keys(&serde_json::json!({"Records": [record(name, "b", "k")]}).to_string()), ["b/k"], "{name}");
        }
        let long = "k".repeat(KEY_BYTES_MAX + 1);
        let others = serde_json::json!({"Records": [
            record("s3:ObjectAccessed:Head", "b", "k"), record("ObjectTagging:Put", "b", "k"), record("", "b", "k"),
            record("ObjectCreated:Put", "", "k"), record("ObjectCreated:Put", "b", ""),
            record("ObjectCreated:Put", "b", &long), {}, {"eventName": "ObjectCreated:Put"},
            record("ObjectCreated:Put", "b", "after all")]});
        let told = parse(others.to_string().as_bytes()).expect("records");
        assert_eq!((told.touched.len(), told.ignored), (1, 8));
    }

    #[test]
    fn a_test_and_an_empty_line_are_no_error_and_anything_else_is() {
        assert!(parse(br#"{"Service":"Amazon S3","Event":"s3:TestEvent","Bucket":"b"}"#).expect("a test").test);
        for nothing in [r#"{"Records":[]}"#, r#"{"Records":null}"#, " {\"Records\":null}\n"] {
            assert_eq!(parse(nothing.as_bytes()), Ok(Told::default()), "{nothing}");
        }
        for bad in ["", "{}", "[]", "null", "{\"Records\":7}", "{\"Records\":[", "hello", "{\"Records\":[{\"s3\":7}]}"]
        {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
        let nested = r#"{"Type":"Notification","Message":"{\"Type\":\"Notification\",\"Message\":\"{}\"}"}"#;
        assert!(parse(nested.as_bytes()).is_err());
        assert!(parse(&vec![b' '; EVENT_BYTES_MAX + 1]).expect_err("too long").contains("at most"));
        let deep = [b"{\"Records\":".as_slice(), &[b'['; 100_000]].concat();
        assert!(parse(&deep).is_err());
    }

    #[test]
    fn what_is_no_percent_encoding_stays_as_it_is() {
        let text = serde_json::json!({"Records": [record("ObjectCreated:Put", "b", "100%+%zz%4")]}).to_string();
        assert_eq!(keys(&text), ["b/100% %zz%4"]);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_and_every_key_is_within_its_bounds(
            text in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..200),
                "\\{\"(Records|Type|Message|detail|Event)\":[\\[\\]{}\",:a-zA-Z0-9 ]{0,80}".prop_map(String::into_bytes),
            ],
        ) {
            if let Ok(told) = parse(&text) {
                prop_assert!(told.touched.iter().all(|t| (1..=KEY_BYTES_MAX).contains(&t.key.len())));
            }
        }

        #[test]
        fn every_key_is_read_as_it_was_written(key in "[\\PC ]{1,60}") {
            let encoded: String = percent_encoding::percent_encode(key.as_bytes(), percent_encoding::NON_ALPHANUMERIC)
                .to_string()
                .replace("%20", "+");
            let text = serde_json::json!({"Records": [record("ObjectRemoved:Delete", "b", &encoded)]}).to_string();
            prop_assert_eq!(&parse(text.as_bytes()).expect("records").touched[0].key, key.as_bytes());
        }

        #[test]
        fn a_text_that_is_cut_or_changed_anywhere_is_read_or_refused(at in 0..AMAZON.len(), byte in any::<u8>()) {
            let _ = parse(&AMAZON.as_bytes()[..at]);
            let mut changed = AMAZON.as_bytes().to_vec();
            changed[at] = byte;
            let _ = parse(&changed);
        }
    }
}
