//! The link process: it reads packets from one end, impairs them, and writes them to the other.
//!
//! Each direction has a task that reads and decides, and a thread that waits until a packet is due: a thread's sleep is
//! accurate to a tenth of a millisecond, a runtime's timer is not.

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use anyhow::Result;
use fastrand::Rng;
use tokio::sync::oneshot;
use tokio_tun::Tun;

use super::Conditions;
use super::namespaces::Namespaces;

/// Printed by the process once it carries packets; any other output is the reason why it cannot.
pub(super) const READY: &str = "Carrying\n";
/// How far a sender may be ahead of the rate; packets beyond are dropped, as by a router with a full queue.
const QUEUE: Duration = Duration::from_millis(100);
/// Packets in transit in one direction, at any rate below a gigabit per second.
const ON_THE_WAY: usize = 16 << 10;
const MAX_PACKET: usize = 64 << 10;

struct Packet {
    due: Instant,
    bytes: Vec<u8>,
}

/// Fate of the packets in one direction.
#[derive(Default)]
struct Counts {
    carried: AtomicU64,
    lost: AtomicU64,
    over_the_queue: AtomicU64,
}

/// Carries packets until the parent process has ended.
pub(crate) async fn run(conditions: &Conditions) -> Result<()> {
    let (namespaces, devices) = match Namespaces::make() {
        Ok(made) => made,
        Err(error) => {
            println!("{error:#}");
            return Ok(());
        }
    };
    let [server, client] = devices.map(Arc::new);
    let directions = [
        ("to the client", carry(Arc::clone(&server), Arc::clone(&client), *conditions, 0)),
        ("to the server", carry(client, server, *conditions, 1)),
    ];
    std::io::stdout().write_all(READY.as_bytes())?;
    std::io::stdout().flush()?;
    parent_gone().await;
    drop(namespaces);
    for (direction, counts) in directions {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (carried, lost, over) = (count(&counts.carried), count(&counts.lost), count(&counts.over_the_queue));
        eprintln!("  link {direction}: {carried} packets carried, {lost} lost, {over} dropped from its full queue");
    }
    Ok(())
}

/// Starts one direction; it ends with the process.
fn carry(from: Arc<Tun>, to: Arc<Tun>, conditions: Conditions, direction: u64) -> Arc<Counts> {
    let counts = Arc::new(Counts::default());
    let (sender, receiver) = sync_channel(ON_THE_WAY);
    let counted = Arc::clone(&counts);
    tokio::spawn(async move { receive(&from, conditions, direction, &sender, &counted).await });
    std::thread::spawn(move || deliver(&to, &receiver));
    counts
}

async fn receive(device: &Tun, conditions: Conditions, direction: u64, out: &SyncSender<Packet>, counts: &Counts) {
    let mut random = Rng::with_seed(conditions.seed * 2 + direction);
    let delay = Duration::from_millis(conditions.delay_ms);
    let mut buffer = vec![0; MAX_PACKET];
    // Time at which the line will have sent everything it was given so far.
    let mut free = Instant::now();
    while let Ok(length) = device.recv(&mut buffer).await {
        let now = Instant::now();
        // Drawn for every packet, so that the sequence does not depend on the queue.
        let is_lost = random.f64() < conditions.loss;
        let counter = if is_lost {
            &counts.lost
        } else if free.saturating_duration_since(now) > QUEUE {
            &counts.over_the_queue
        } else {
            free = free.max(now) + Duration::from_secs_f64(length as f64 * 8.0 / (conditions.rate_mbit * 1e6));
            let packet = Packet { due: free + delay, bytes: buffer[..length].to_vec() };
            if out.try_send(packet).is_ok() { &counts.carried } else { &counts.over_the_queue }
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

fn deliver(device: &Tun, packets: &Receiver<Packet>) {
    for packet in packets {
        std::thread::sleep(packet.due.saturating_duration_since(Instant::now()));
        // A device that is being removed accepts nothing more.
        device.try_send(&packet.bytes).ok();
    }
}

async fn parent_gone() {
    let (sender, gone) = oneshot::channel();
    std::thread::spawn(move || {
        let mut byte = [0];
        while matches!(std::io::stdin().read(&mut byte), Ok(1..)) {}
        sender.send(()).ok();
    });
    gone.await.ok();
}
