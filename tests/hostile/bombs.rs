//! Compressed bodies designed to cost much: memory, or the time of all clients on the worker.

#[cfg(target_os = "linux")]
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tokio::task::JoinSet;

use super::common::forms::Form;
use super::common::topics::Subscriber;
use super::common::{framed, soon, with_attachment};
#[cfg(target_os = "linux")]
use super::scene::Watched;
use super::scene::{Scene, Target};

const MAX: usize = 1 << 20;

/// A zstd frame as a body.
pub(crate) fn compressed(frame: &[u8]) -> Vec<u8> {
    [&[2], frame].concat()
}

/// This many zero bytes as a zstd frame, made of blocks that each represent 128 KiB by four bytes (RFC 8878 section
/// 3.1.1.2): the smallest possible. The window is 128 KiB times a power of two.
pub(crate) fn zeros(bytes: usize, window_log: u8) -> Vec<u8> {
    const BLOCK: usize = 128 << 10;
    // The magic number, a descriptor without a size, a window of 2^window_log bytes.
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, (window_log - 10) << 3];
    let mut left = bytes;
    while left > 0 {
        let size = left.min(BLOCK);
        left -= size;
        let head = u32::try_from(size << 3 | 1 << 1 | usize::from(left == 0)).expect("24 bits");
        frame.extend_from_slice(&head.to_le_bytes()[..3]);
        frame.push(0);
    }
    frame
}

#[tokio::test]
async fn a_small_body_that_inflates_to_gigabytes_is_cut_off_at_the_limit() {
    let scene = Scene::start("").await;
    let bomb = zeros(4 << 30, 17);
    assert!(bomb.len() < 200_000, "{} bytes", bomb.len());
    for on_lane in [false, true] {
        for _ in 0..20 {
            let mut client = scene.target.compressing("Eve").await;
            if on_lane {
                let mut lane = client.lane().await;
                lane.body(&compressed(&bomb)).await;
                client.expect_close(1009).await;
            } else {
                client.control.body(&compressed(&bomb)).await;
                client.expect_close(1009).await;
            }
        }
    }
    let client = scene.target.compressing("Eve").await;
    let small = compressed(&zeros(30 << 20, 17));
    client.connection.send_datagram(small.into()).expect("a datagram leaves");
    assert_eq!(client.closed().await.0, 1009);
    scene.end().await;
}

#[tokio::test]
async fn a_window_above_8_mib_is_refused_whatever_its_content() {
    let scene = Scene::start("").await;
    let mut client = scene.target.compressing("Eve").await;
    for _ in 0..100 {
        for window_log in [24, 27, 31, 41] {
            client.control.body(&compressed(&zeros(1000, window_log))).await;
            assert!(client.control.expect_error(400).await.starts_with("zstd"));
        }
    }
    // An allowed window, but no JSON: the third of these is the last.
    for _ in 0..3 {
        client.control.body(&compressed(&zeros(1000, 23))).await;
        client.control.expect_error(400).await;
    }
    client.expect_close(1007).await;
    scene.end().await;
}

/// Bits of a deflate stream, from the lowest of each byte on (RFC 1951 section 3.1.1).
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    used: u32,
}

impl Bits {
    fn put(&mut self, value: u32, bits: u32) {
        for at in 0..bits {
            if self.used.is_multiple_of(8) {
                self.bytes.push(0);
            }
            let last = self.bytes.last_mut().expect("a byte");
            *last |= u8::from(value >> at & 1 == 1) << (self.used % 8);
            self.used += 1;
        }
    }

    /// The shortest block with code tables of its own (RFC 1951 section 3.2.7), which inflates to nothing: its only
    /// code is that of its end.
    fn put_empty_block(&mut self, is_last: bool) {
        self.put(u32::from(is_last), 1);
        self.put(2, 2);
        // 257 literal codes and one distance code, whose lengths are written with the codes for 18 and 1 alone.
        self.put(0, 5);
        self.put(0, 5);
        self.put(18 - 4, 4);
        let order = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1];
        for code in order {
            self.put(u32::from(code == 18 || code == 1), 3);
        }
        // 256 times the length 0, twice the length 1.
        for zeros in [138, 118] {
            self.put(1, 1);
            self.put(zeros - 11, 7);
        }
        self.put(0, 1);
        self.put(0, 1);
        self.put(0, 1);
    }
}

#[tokio::test]
async fn a_deflate_stream_of_a_hundred_thousand_tables_is_refused_at_once() {
    let scene = Scene::start("").await;
    let mut bits = Bits::default();
    while bits.bytes.len() < MAX - 100 {
        bits.put_empty_block(false);
    }
    bits.put_empty_block(true);
    let body = [&[3][..], &bits.bytes].concat();
    let mut client = scene.target.compressing_with(Form::Deflate, "Eve").await;
    // Each of them took a quarter of a second of the worker's time if it were inflated to its end.
    for _ in 0..20 {
        client.control.body(&body).await;
        assert!(client.control.expect_error(400).await.contains("blocks"));
    }
    scene.end().await;
}

/// A request of about 150 bytes that inflates to a megabyte and has a small answer.
fn costly(message: &serde_json::Value, form: Form) -> Vec<u8> {
    let mut body = message.to_string();
    body.extend(std::iter::repeat_n(' ', MAX - body.len()));
    form.body(body.as_bytes())
}

/// Sends this many of them at once on each of some lanes, and waits for the answers.
pub(crate) async fn burn(target: &Target, form: Form, lanes: usize, each: usize) {
    let client = target.compressing_with(form, "Eve").await;
    let batch = framed(&costly(&json!({"type": "ping"}), form)).repeat(each);
    let mut burning = JoinSet::new();
    for _ in 0..lanes {
        let (mut lane, batch) = (client.lane().await, batch.clone());
        burning.spawn(async move {
            lane.raw(&batch).await;
            for _ in 0..each {
                lane.expect("pong").await;
            }
        });
    }
    burning.join_all().await;
}

#[tokio::test]
async fn many_small_expensive_bodies_delay_no_other_client() {
    let scene = Scene::start("").await;
    // Without pauses in between, a worker would be blocked for as long as it takes to inflate and parse them all.
    for form in Form::ALL {
        burn(&scene.target, form, 2, 100).await;
    }
    scene.end().await;
}

/// Requests a long page again and again, on this many lanes at once, for a while; returns the number received.
#[cfg(target_os = "linux")]
async fn turn_pages(target: &Target, topic: &str, lanes: usize, within: Duration) -> usize {
    let client = target.compressing("Eve").await;
    let request = json!({"type": "history", "topic": topic, "limit": 1}).to_string();
    let end = tokio::time::Instant::now() + within;
    let mut asking = JoinSet::new();
    for _ in 0..lanes {
        let (mut lane, request) = (client.lane().await, request.clone());
        asking.spawn(async move {
            let mut pages = 0;
            let turning = async {
                loop {
                    lane.body(request.as_bytes()).await;
                    lane.hear_body().await;
                    pages += 1;
                }
            };
            let _ = tokio::time::timeout_at(end, turning).await;
            pages
        });
    }
    asking.join_all().await.into_iter().sum()
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn long_pages_on_many_lanes_delay_no_other_client() {
    let watched = Watched::start("rates.loopback = true").await;
    let mut publisher = watched.target.client("publisher").await;
    let publish = json!({"type": "publish", "topic": "pages", "content": "a".repeat(1_000_000), "id": 1});
    publisher.control.say(publish).await;
    publisher.control.expect("published").await;
    let pages = turn_pages(&watched.target, "pages", 31, Duration::from_secs(3)).await;
    // The burst is 16 pages, and at most as many again as the rate allows in that time.
    assert!((1..60).contains(&pages), "{pages} pages in 3 s");
    drop(publisher);
    watched.end().await;
}

#[tokio::test]
async fn many_small_expensive_datagrams_delay_no_other_client() {
    let scene = Scene::start("").await;
    let client = scene.target.compressing("Eve").await;
    let body = Bytes::from(costly(&json!({"type": "ping"}), Form::Zstd));
    for _ in 0..150 {
        client.connection.send_datagram_wait(body.clone()).await.expect("a datagram leaves");
    }
    for _ in 0..150 {
        soon("an answer", client.connection.read_datagram()).await.expect("an answer");
    }
    drop(client);
    scene.end().await;
}

#[tokio::test]
async fn a_compressed_publish_reaches_subscribers_whole_or_not_at_all() {
    let scene = Scene::start("topics = [{ pattern = 'bombs', history_messages = 0 }]").await;
    let mut subscriber = Subscriber::new(scene.target.client("subscriber").await);
    subscriber.subscribe(json!({"topic": "bombs"})).await;
    let message = json!({"type": "publish", "topic": "bombs", "id": 1});
    let head = with_attachment(&message, b"").len();
    let mut published = 0;
    for above in [0, 1, 64 << 20, 0] {
        let mut client = scene.target.compressing("Eve").await;
        let body = with_attachment(&message, &vec![0; MAX - head + above]);
        client.control.body(&compressed(&zstd::bulk::compress(&body, 3).expect("it compresses"))).await;
        if above > 0 {
            client.expect_close(1009).await;
            continue;
        }
        published += 1;
        assert_eq!(client.control.expect("published").await["offset"], published);
        let (heard, attachment) = subscriber.lane().await.hear_with().await;
        assert_eq!((&heard["offset"], attachment.len()), (&json!(published), MAX - head));
        assert!(attachment.iter().all(|byte| *byte == 0));
    }
    drop(subscriber);
    scene.end().await;
}
