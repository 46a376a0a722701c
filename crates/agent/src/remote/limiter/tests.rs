//! The limiter with a clock that stands still. Only what takes long enough is asserted of time.

#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;

/// Monday, noon.
fn limiter(limits: &[&str]) -> Limiter {
    let limiter = Limiter::with_clock(|| Moment::new(0, 12, 0));
    limiter.set(limits.iter().map(|limit| limit.parse().unwrap()).collect());
    limiter
}

fn get<'a>(limiter: &'a Limiter, kib: u64, is_awaited: &dyn Fn() -> bool) -> Option<Turn<'a>> {
    let errand = Errand { go_on: &|| true, is_awaited, heard: &|| {} };
    limiter.get(kib << 10, &|| true, &errand)
}

#[test]
fn without_a_limit_that_fits_nobody_waits() {
    for limits in [&[][..], &["both=16KiB/s,demand,12:01-12:00"], &["both=16KiB/s,demand,tue-sun"]] {
        let limiter = limiter(limits);
        assert!(limiter.send(1 << 40, &|| true));
        drop(get(&limiter, 1 << 30, &|| false).unwrap());
        drop(get(&limiter, 1 << 30, &|| true).unwrap());
        assert_eq!((limiter.portion_up(), limiter.portion_down(false), limiter.in_force().is_nothing()), (None, None, true));
    }
}

#[test]
fn what_is_limited_takes_its_time_and_each_direction_has_its_own() {
    let limiter = limiter(&["up=64KiB/s", "down=1GiB/s"]);
    let begun = Instant::now();
    drop(get(&limiter, 1 << 10, &|| false).unwrap());
    assert!(limiter.send(16 << 10, &|| true) && limiter.send(16 << 10, &|| true));
    assert!(begun.elapsed() >= Duration::from_millis(490));
    assert_eq!((limiter.portion_up(), limiter.portion_down(true)), (Some(128 << 10), None));
}

#[test]
fn waiting_ends_when_nobody_wants_it_and_when_the_limit_goes() {
    let limiter = limiter(&["both=16KiB/s"]);
    let (asked, heard) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let count = |counter: &AtomicUsize| counter.fetch_add(1, Ordering::Relaxed);
    let heard_it = || {
        count(&heard);
    };
    let errand = Errand { go_on: &|| count(&asked) < 3, is_awaited: &|| false, heard: &heard_it };
    assert!(limiter.get(1 << 30, &|| true, &errand).is_none());
    assert!(heard.load(Ordering::Relaxed) >= 2, "it gets on while it waits");
    assert!(limiter.state().down.waiting.is_empty());
    std::thread::scope(|scope| {
        let sent = scope.spawn(|| limiter.send(1 << 40, &|| true));
        while limiter.state().up.waiting.is_empty() {
            std::thread::yield_now();
        }
        limiter.set(Vec::new());
        assert!(sent.join().unwrap());
    });
}

#[test]
fn demand_passes_and_counts_and_what_becomes_demand_passes_too() {
    let limiter = limiter(&["down=64KiB/s"]);
    let mut demand = get(&limiter, 1 << 20, &|| true).unwrap();
    demand.came(64 << 20);
    drop(demand);
    let (is_awaited, passed) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            drop(get(&limiter, 16, &|| is_awaited.load(Ordering::Relaxed)).unwrap());
            passed.store(true, Ordering::Relaxed);
        });
        while limiter.state().down.waiting.is_empty() {
            std::thread::yield_now();
        }
        // Somebody else who has demand is not held up by those who wait.
        drop(get(&limiter, 1 << 20, &|| true).unwrap());
        assert!(!passed.load(Ordering::Relaxed), "a minute has not passed");
        is_awaited.store(true, Ordering::Relaxed);
        waiting.join().unwrap();
    });
}

#[test]
fn demand_that_is_limited_waits_but_goes_first() {
    let begun = Instant::now();
    let limiter = limiter(&["down=16KiB/s,demand"]);
    let order = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let fetch = |is_awaited: bool, kib: u64| {
            get(&limiter, kib, &|| is_awaited).unwrap().came(kib << 10);
            order.lock().unwrap().push(is_awaited);
        };
        scope.spawn(move || fetch(false, 32));
        while limiter.state().down.waiting.is_empty() {
            std::thread::yield_now();
        }
        scope.spawn(move || fetch(true, 32));
    });
    assert_eq!(*order.lock().unwrap(), [true, false]);
    assert!(begun.elapsed() >= Duration::from_millis(3_990), "both wait");
}

#[test]
fn what_did_not_come_is_given_back() {
    let limiter = limiter(&["down=64KiB/s"]);
    let mut turn = get(&limiter, 16, &|| false).unwrap();
    turn.came(4 << 10);
    assert_eq!(turn.paid, 12 << 10);
    drop(turn);
    let bucket = limiter.state().down.bucket.clone().unwrap();
    assert_eq!(bucket.clone().take(12 << 10, 0), Ok(()));
}
