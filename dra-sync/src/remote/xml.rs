//! The XML that S3 and Azure answer with: pages of a listing, and errors. Pure; the text comes from the network and is bounded by the
//! caller.

use percent_encoding::percent_decode;
use quick_xml::Reader;
use quick_xml::events::Event;
use sateen_types::Timestamp;

use super::Listed;
use super::times::{http_date, rfc3339};

/// Deepest nesting that is read; a listing has three levels.
const DEPTH_MAX: usize = 16;
/// Longest text of one element that is kept, in bytes: a key that is percent-encoded in full.
const TEXT_BYTES_MAX: usize = 4096;

/// One page of ListObjectsV2.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ListPage {
    /// In the store's order, keys in full.
    pub objects: Vec<Listed>,
    /// More follow.
    pub truncated: bool,
}

/// Calls `found` with the names of the open elements, from the root on, and the text of each innermost one. (Azure percent-encodes
/// texts that XML cannot hold, and says so.)
fn walk(text: &[u8], mut found: impl FnMut(&[Vec<u8>], &[u8], Moment) -> Result<(), String>) -> Result<(), String> {
    let mut reader = Reader::from_reader(text);
    let mut open: Vec<Vec<u8>> = Vec::new();
    let mut words: Vec<u8> = Vec::new();
    let (mut seen, mut encoded) = (false, false);
    let more = |words: &mut Vec<u8>, part: &[u8]| {
        if words.len() + part.len() > TEXT_BYTES_MAX {
            return Err(format!("an element holds more than {TEXT_BYTES_MAX} bytes"));
        }
        words.extend_from_slice(part);
        Ok(())
    };
    loop {
        match reader.read_event().map_err(|e| format!("byte {}: {e}", reader.error_position()))? {
            Event::Start(element) => {
                if open.len() >= DEPTH_MAX {
                    return Err(format!("more than {DEPTH_MAX} elements lie in one another"));
                }
                seen = true;
                let attribute = element.try_get_attribute("Encoded").map_err(|e| e.to_string())?;
                encoded = attribute.is_some_and(|attribute| attribute.value.eq_ignore_ascii_case(b"true"));
                open.push(element.local_name().as_ref().to_vec());
                words.clear();
                found(&open, &[], Moment::Begin)?;
            }
            Event::Empty(element) => {
                open.push(element.local_name().as_ref().to_vec());
                found(&open, &[], Moment::Begin)?;
                found(&open, &[], Moment::End)?;
                open.pop();
            }
            Event::Text(part) => more(&mut words, &part)?,
            Event::CData(part) => more(&mut words, &part)?,
            Event::GeneralRef(entity) => {
                let resolved = match &*entity {
                    b"lt" => Some('<'),
                    b"gt" => Some('>'),
                    b"amp" => Some('&'),
                    b"quot" => Some('"'),
                    b"apos" => Some('\''),
                    _ => entity.resolve_char_ref().ok().flatten(),
                };
                let c =
                    resolved.ok_or_else(|| format!("the entity {:?} is unknown", String::from_utf8_lossy(&entity)))?;
                more(&mut words, c.encode_utf8(&mut [0; 4]).as_bytes())?;
            }
            Event::End(_) => {
                if std::mem::take(&mut encoded) {
                    words = percent_decode(&words).collect();
                }
                found(&open, &words, Moment::End)?;
                words.clear();
                open.pop();
            }
            Event::Eof if seen && open.is_empty() => return Ok(()),
            Event::Eof => return Err("it ends in the middle".to_owned()),
            _ => {}
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Moment {
    Begin,
    End,
}

/// Reads a page. Errors say what is wrong with it.
pub fn list_page(text: &[u8]) -> Result<ListPage, String> {
    let mut page = ListPage::default();
    let mut encoded = false;
    let mut entry = Entry::default();
    walk(text, |open, words, moment| {
        let path: Vec<&[u8]> = open.iter().map(Vec::as_slice).collect();
        match (&path[..], moment) {
            ([root], _) if *root != b"ListBucketResult" => {
                return Err(format!("it is a {:?}", String::from_utf8_lossy(root)));
            }
            ([_, b"Contents"], Moment::Begin) => entry = Entry::default(),
            ([_, b"Contents"], Moment::End) => page.objects.push(std::mem::take(&mut entry).finish()?),
            ([_, b"Contents", field], Moment::End) => entry.take(field, words)?,
            ([_, b"IsTruncated"], Moment::End) => page.truncated = words == b"true",
            ([_, b"EncodingType"], Moment::End) => encoded = words == b"url",
            _ => {}
        }
        Ok(())
    })?;
    if encoded {
        page.objects.iter_mut().for_each(|object| object.key = decoded(&object.key));
    }
    Ok(page)
}

/// One `Contents`, or one `Blob` with its `Properties`.
#[derive(Default)]
struct Entry {
    key: Option<Vec<u8>>,
    size: Option<u64>,
    etag: String,
    modified: Option<Timestamp>,
}

impl Entry {
    fn take(&mut self, field: &[u8], words: &[u8]) -> Result<(), String> {
        let text = || std::str::from_utf8(words).map_err(|_| "a value is not UTF-8".to_owned());
        match field {
            b"Key" => self.key = Some(words.to_vec()),
            b"Size" | b"Content-Length" => {
                self.size = Some(text()?.trim().parse().map_err(|_| format!("size {:?}", text()))?)
            }
            b"ETag" | b"Etag" => self.etag = super::bare_etag(text()?).to_owned(),
            b"LastModified" => self.modified = Some(rfc3339(text()?.trim()).ok_or(format!("time {:?}", text()))?),
            b"Last-Modified" => self.modified = Some(http_date(text()?.trim()).ok_or(format!("time {:?}", text()))?),
            _ => {}
        }
        Ok(())
    }

    fn finish(self) -> Result<Listed, String> {
        Ok(Listed {
            key: self.key.ok_or("an object has no key")?,
            size: self.size.ok_or("an object has no size")?,
            etag: self.etag,
            modified: self.modified.ok_or("an object has no time")?,
        })
    }
}

/// One page of Azure's List Blobs.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct BlobPage {
    /// In the store's order, keys in full.
    pub objects: Vec<Listed>,
    /// What the next page is asked for with.
    pub next: Option<String>,
}

/// Reads a page of Azure's. Directories of accounts that have such are left out: they are no objects.
pub fn blobs(text: &[u8]) -> Result<BlobPage, String> {
    let mut page = BlobPage::default();
    let (mut entry, mut directory) = (Entry::default(), false);
    walk(text, |open, words, moment| {
        let path: Vec<&[u8]> = open.iter().map(Vec::as_slice).collect();
        match (&path[..], moment) {
            ([root], _) if *root != b"EnumerationResults" => {
                return Err(format!("it is a {:?}", String::from_utf8_lossy(root)));
            }
            ([_, b"Blobs", b"Blob"], Moment::Begin) => (entry, directory) = (Entry::default(), false),
            ([_, b"Blobs", b"Blob"], Moment::End) => {
                let entry = std::mem::take(&mut entry).finish()?;
                if !directory {
                    page.objects.push(entry);
                }
            }
            ([_, b"Blobs", b"Blob", b"Name"], Moment::End) => entry.take(b"Key", words)?,
            ([_, b"Blobs", b"Blob", b"Properties", b"ResourceType"], Moment::End) => directory = words == b"directory",
            ([_, b"Blobs", b"Blob", b"Properties", field], Moment::End) => entry.take(field, words)?,
            ([_, b"NextMarker"], Moment::End) => {
                let marker = std::str::from_utf8(words).map_err(|_| "the marker is not UTF-8")?;
                page.next = Some(marker.to_owned()).filter(|marker| !marker.is_empty());
            }
            _ => {}
        }
        Ok(())
    })?;
    Ok(page)
}

/// An answer whose status was a success, and which is none: stores that have begun to answer have no other way to say so.
#[derive(Debug, PartialEq, Eq)]
pub enum NoSuccess {
    /// `Code` and `Message` of an error.
    Error(String, String),
    /// It cannot be read, or is something else.
    Malformed(String),
}

/// The text of the element `field` of an answer whose outermost element is `root`.
pub fn value(text: &[u8], root: &str, field: &str) -> Result<String, NoSuccess> {
    let (mut outermost, mut value) = (Vec::new(), None);
    let read = walk(text, |open, words, moment| {
        if let ([first], Moment::Begin) = (open, moment) {
            outermost = first.clone();
        }
        if let ([_, name], Moment::End) = (open, moment)
            && name == field.as_bytes()
        {
            value = Some(String::from_utf8_lossy(words).trim().to_owned());
        }
        Ok(())
    });
    if outermost == b"Error" {
        let (code, message) = error(text);
        return Err(NoSuccess::Error(code, message));
    }
    read.map_err(NoSuccess::Malformed)?;
    if outermost != root.as_bytes() {
        return Err(NoSuccess::Malformed(format!("it is a {:?}", String::from_utf8_lossy(&outermost))));
    }
    value.filter(|v| !v.is_empty()).ok_or_else(|| NoSuccess::Malformed(format!("it has no {field}")))
}

/// Keys and names of uploads that are not complete.
pub fn uploads(text: &[u8]) -> Result<Vec<(Vec<u8>, String)>, String> {
    let (mut all, mut encoded) = (Vec::new(), false);
    let (mut key, mut id) = (Vec::new(), String::new());
    walk(text, |open, words, moment| {
        let path: Vec<&[u8]> = open.iter().map(Vec::as_slice).collect();
        match (&path[..], moment) {
            ([root], _) if *root != b"ListMultipartUploadsResult" => {
                return Err(format!("it is a {:?}", String::from_utf8_lossy(root)));
            }
            ([_, b"Upload", b"Key"], Moment::End) => key = words.to_vec(),
            ([_, b"Upload", b"UploadId"], Moment::End) => id = String::from_utf8_lossy(words).into_owned(),
            ([_, b"Upload"], Moment::End) => all.push((std::mem::take(&mut key), std::mem::take(&mut id))),
            ([_, b"EncodingType"], Moment::End) => encoded = words == b"url",
            _ => {}
        }
        Ok(())
    })?;
    if encoded {
        all.iter_mut().for_each(|(key, _)| *key = decoded(key));
    }
    Ok(all)
}

/// A key of a listing with `EncodingType`.
fn decoded(key: &[u8]) -> Vec<u8> {
    // A plus is a blank here: that is how S3 and its likes write keys in listings.
    let spaced: Vec<u8> = key.iter().map(|b| if *b == b'+' { b' ' } else { *b }).collect();
    percent_decode(&spaced).collect()
}

/// `Code` and `Message` of an error, as far as they are there.
pub fn error(text: &[u8]) -> (String, String) {
    let (mut code, mut message) = (String::new(), String::new());
    // What cannot be read is no better than what is not there.
    let _ = walk(text, |open, words, moment| {
        if moment == Moment::End && open.len() == 2 {
            match open[1].as_slice() {
                b"Code" => code = String::from_utf8_lossy(words).into_owned(),
                b"Message" => message = String::from_utf8_lossy(words).into_owned(),
                _ => {}
            }
        }
        Ok(())
    });
    (code, message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn page(contents: &str, rest: &str) -> String {
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
             <Name>b</Name><MaxKeys>1000</MaxKeys>{rest}{contents}</ListBucketResult>"
        )
    }

    fn entry(key: &str) -> String {
        format!(
            "<Contents><Key>{key}</Key><LastModified>2026-11-22T10:11:12.345Z</LastModified><ETag>&quot;abc&quot;</ETag>\
             <Size>7</Size><StorageClass>STANDARD</StorageClass></Contents>"
        )
    }

    #[test]
    fn a_page_is_read_with_keys_as_they_are() {
        let text = page(&(entry("a&amp;b//c/") + &entry("x&#10;y")), "<IsTruncated>true</IsTruncated>");
        let page = list_page(text.as_bytes()).expect("a page");
        assert!(page.truncated);
        let keys: Vec<&[u8]> = page.objects.iter().map(|o| o.key.as_slice()).collect();
        assert_eq!(keys, [&b"a&b//c/"[..], b"x\ny"]);
        let first = &page.objects[0];
        assert_eq!((first.size, first.etag.as_str()), (7, "abc"));
        assert_eq!((first.modified.seconds, first.modified.nanos), (1_795_342_272, 345_000_000));
    }

    #[test]
    fn encoded_keys_are_decoded_if_the_page_says_so() {
        let plain = list_page(page(&entry("a%2Fb+c"), "").as_bytes()).expect("a page");
        assert_eq!(plain.objects[0].key, b"a%2Fb+c");
        let encoded = page(&entry("a%2Fb+c%01%2B"), "<EncodingType>url</EncodingType>");
        assert_eq!(list_page(encoded.as_bytes()).expect("a page").objects[0].key, b"a/b c\x01+");
    }

    #[test]
    fn an_empty_page_is_one() {
        let empty = list_page(page("", "<IsTruncated>false</IsTruncated>").as_bytes()).expect("a page");
        assert_eq!(empty, ListPage::default());
    }

    #[test]
    fn what_is_no_page_is_refused() {
        let cut = page(&entry("k"), "");
        for text in [
            "",
            "hello",
            "<Error><Code>x</Code></Error>",
            "<html></html>",
            &cut[..cut.len() - 30],
            &page("<Contents><Size>1</Size></Contents>", ""),
            &page(&entry("k").replace(">7<", ">-7<"), ""),
            &page(&entry("k").replace("2026-11", "2026-13"), ""),
            &page(&entry(&"k".repeat(5000)), ""),
            &page(&entry("&bomb;"), ""),
        ] {
            list_page(text.as_bytes()).expect_err(text);
        }
    }

    #[test]
    fn an_error_is_told_as_far_as_it_is_one() {
        let text = "<?xml version=\"1.0\"?><Error><Code>SlowDown</Code><Message>Please &lt;wait&gt;</Message></Error>";
        assert_eq!(error(text.as_bytes()), ("SlowDown".to_owned(), "Please <wait>".to_owned()));
        assert_eq!(error(b"<Error><Code>Slow"), (String::new(), String::new()));
        assert_eq!(error(b"\xff\0 not XML"), (String::new(), String::new()));
    }

    #[test]
    fn a_success_that_is_none_is_told_apart() {
        let done =
            "<?xml version=\"1.0\"?>\n <CopyObjectResult xmlns=\"x\"><ETag>&quot;a-2&quot;</ETag></CopyObjectResult>";
        assert_eq!(value(done.as_bytes(), "CopyObjectResult", "ETag"), Ok("\"a-2\"".to_owned()));
        let error = "  <Error><Code>InternalError</Code><Message>again</Message></Error>";
        let told = NoSuccess::Error("InternalError".to_owned(), "again".to_owned());
        assert_eq!(value(error.as_bytes(), "CopyObjectResult", "ETag"), Err(told));
        for bad in ["", " ", "<CopyObjectResult><ETag>", "<Other><ETag>a</ETag></Other>", "<CopyObjectResult/>"] {
            let result = value(bad.as_bytes(), "CopyObjectResult", "ETag");
            assert!(matches!(result, Err(NoSuccess::Malformed(_))), "{bad:?}: {result:?}");
        }
    }

    #[test]
    fn blobs_are_listed_as_azure_does() {
        let blob = |name: &str, more: &str| {
            format!(
                "<Blob>{name}<Properties><Last-Modified>Sun, 22 Nov 2026 10:11:12 GMT</Last-Modified><Etag>0x8D</Etag>\
                 <Content-Length>7</Content-Length>{more}</Properties></Blob>"
            )
        };
        let page = |inner: &str, next: &str| {
            format!(
                "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults ContainerName=\"c\">\
                 <Blobs>{inner}</Blobs>{next}</EnumerationResults>"
            )
        };
        let inner = [
            blob("<Name>a &amp; b</Name>", "<AccessTier>Archive</AccessTier>"),
            blob("<Name Encoded=\"true\">c%01%2Fd</Name>", ""),
            blob("<Name>e</Name>", "<ResourceType>directory</ResourceType>"),
            blob("<Name>f%20g</Name>", "<ResourceType>file</ResourceType>"),
        ];
        let read = blobs(page(&inner.concat(), "<NextMarker>2!8</NextMarker>").as_bytes()).expect("a page");
        let keys: Vec<_> = read.objects.iter().map(|o| String::from_utf8_lossy(&o.key).into_owned()).collect();
        assert_eq!(keys, ["a & b", "c\u{1}/d", "f%20g"]);
        let first = &read.objects[0];
        assert_eq!((first.size, first.etag.as_str()), (7, "0x8D"));
        assert_eq!(first.modified, http_date("Sun, 22 Nov 2026 10:11:12 GMT").expect("a time"));
        assert_eq!(read.next.as_deref(), Some("2!8"));
        assert_eq!(blobs(page("", "<NextMarker />").as_bytes()), Ok(BlobPage::default()));
        blobs(page("<Blob><Name>a</Name></Blob>", "").as_bytes()).expect_err("nothing is said of it");
        blobs(b"<ListBucketResult></ListBucketResult>").expect_err("S3's");
    }

    #[test]
    fn uploads_are_listed_with_their_keys() {
        let text = "<ListMultipartUploadsResult><EncodingType>url</EncodingType>\
                    <Upload><Key>a%2Fb</Key><UploadId>one</UploadId></Upload>\
                    <Upload><UploadId>two</UploadId><Key>c</Key></Upload></ListMultipartUploadsResult>";
        let all = vec![(b"a/b".to_vec(), "one".to_owned()), (b"c".to_vec(), "two".to_owned())];
        assert_eq!(uploads(text.as_bytes()), Ok(all));
        uploads(b"<Error/>").expect_err("no listing");
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = list_page(&text);
            let _ = error(&text);
            let _ = value(&text, "a", "b");
            let _ = uploads(&text);
            let _ = blobs(&text);
        }

        #[test]
        fn no_damage_to_a_page_makes_the_reader_panic(at in 0usize..300, byte: u8) {
            let mut text = page(&entry("some/key"), "<EncodingType>url</EncodingType>").into_bytes();
            let at = at % text.len();
            text[at] = byte;
            let _ = list_page(&text);
        }
    }
}
