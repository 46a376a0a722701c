//! A way through bad weather: a TCP proxy that delays, throttles, stands still, breaks connections in the middle of what
//! they carry, and refuses new ones.
//!
//! It knows nothing of what passes through it. Its two ends may lie in different network namespaces.
//!
//! **Invariant:** bytes that pass are never changed and keep their order; a connection that breaks, breaks on both ends.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::{Dice, noted};

/// How often a thread looks whether it has to end.
const LOOK: Duration = Duration::from_millis(50);
/// Bytes that pass at once.
const PIECE: usize = 16 << 10;

/// What happens to what passes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Weather {
    /// Each piece waits for so long.
    pub(crate) delay_ms: u64,
    /// Bytes in a second and direction; none: no limit.
    pub(crate) rate: Option<u64>,
    /// Of a thousand pieces so many break their connection, after a part of them has passed.
    pub(crate) breaks: usize,
    /// Nothing passes, and nobody is told.
    pub(crate) stands_still: bool,
    /// All connections break, and new ones are closed at once.
    pub(crate) is_down: bool,
}

#[derive(Debug, Default)]
struct Shared {
    weather: Mutex<Weather>,
    stop: AtomicBool,
    broken: AtomicU64,
}

impl Shared {
    fn weather(&self) -> Weather {
        *self.weather.lock().unwrap()
    }

    fn must_end(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.weather().is_down
    }
}

/// Where the two ends of a proxy are.
#[derive(Debug, Clone)]
pub(crate) struct Ends {
    pub(crate) listen: SocketAddr,
    pub(crate) listen_in: Option<PathBuf>,
    pub(crate) connect: SocketAddr,
    pub(crate) connect_in: Option<PathBuf>,
}

/// A proxy that runs until it is dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Proxy {
    /// A proxy on this machine's loopback.
    pub(crate) fn to(service: &str) -> Self {
        let connect = service.strip_prefix("http://").unwrap().parse().unwrap();
        let listen = "127.0.0.1:0".parse().unwrap();
        Self::between(Ends { listen, listen_in: None, connect, connect_in: None })
    }

    pub(crate) fn between(ends: Ends) -> Self {
        let shared = Arc::new(Shared::default());
        let (own, to) = (Arc::clone(&shared), ends.clone());
        // A socket belongs to the namespace of the thread that makes it.
        let listener = in_namespace(ends.listen_in, move || TcpListener::bind(ends.listen).unwrap()).join().unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let accepts = in_namespace(ends.connect_in, move || accept(&listener, to.connect, &own));
        Self { address, shared, threads: vec![accepts] }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn set(&self, weather: Weather) {
        *self.shared.weather.lock().unwrap() = weather;
    }

    /// Connections that the weather has broken.
    pub(crate) fn broken(&self) -> u64 {
        self.shared.broken.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn in_namespace<T: Send + 'static>(namespace: Option<PathBuf>, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    std::thread::spawn(move || {
        if let Some(namespace) = namespace {
            move_into_link_name_space(File::open(namespace).unwrap().as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        }
        work()
    })
}

/// Takes connections and starts two pumps for each. Threads that it starts are in its namespace.
fn accept(listener: &TcpListener, to: SocketAddr, shared: &Arc<Shared>) {
    let mut pumps: Vec<JoinHandle<()>> = Vec::new();
    while !shared.stop.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((near, _)) if !shared.must_end() => {
                // The service may be away: then the near end closes as well.
                if let Ok(far) = TcpStream::connect_timeout(&to, Duration::from_secs(5)) {
                    pumps.extend(connect(&near, &far, shared));
                }
            }
            Ok(_) => {}
            Err(_) => std::thread::sleep(Duration::from_millis(5)), // tidy: wait nobody has come
        }
        pumps.retain(|pump| !pump.is_finished());
    }
    pumps.into_iter().for_each(|pump| pump.join().unwrap());
}

fn connect(near: &TcpStream, far: &TcpStream, shared: &Arc<Shared>) -> [JoinHandle<()>; 2] {
    [(near, far), (far, near)].map(|(from, to)| {
        from.set_nonblocking(false).unwrap();
        from.set_nodelay(true).unwrap();
        from.set_read_timeout(Some(LOOK)).unwrap();
        let (from, to, shared) = (from.try_clone().unwrap(), to.try_clone().unwrap(), Arc::clone(shared));
        std::thread::spawn(move || {
            pump(&from, &to, &shared);
            // Both fail if the other pump was first.
            let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
        })
    })
}

fn pump(mut from: &TcpStream, mut to: &TcpStream, shared: &Shared) {
    let mut piece = vec![0; PIECE];
    let mut dice = Dice(noted().wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    loop {
        let read = match from.read(&mut piece) {
            Ok(0) => return,
            Ok(read) => read,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => 0,
            Err(_) => return,
        };
        while shared.weather().stands_still && !shared.must_end() {
            std::thread::sleep(LOOK); // tidy: wait nothing passes
        }
        if shared.must_end() {
            return;
        }
        let weather = shared.weather();
        let late = if read > 0 { weather.delay_ms + weather.rate.map_or(0, |rate| read as u64 * 1_000 / rate) } else { 0 };
        std::thread::sleep(Duration::from_millis(late)); // tidy: wait the line is slow
        let is_broken = read > 0 && dice.roll(1_000) < weather.breaks;
        let passes = if is_broken { dice.roll(read) } else { read };
        if to.write_all(&piece[..passes]).is_err() {
            return;
        }
        if is_broken {
            shared.broken.fetch_add(1, Ordering::Relaxed);
            return;
        }
    }
}
