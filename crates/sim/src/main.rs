//! `isotherm-sim run --from N --count M`: runs seeds and says which fail.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use isotherm_sim::{Options, run};

const USAGE: &str = "Runs simulated worlds; each seed is one run.

Usage: isotherm-sim run [--from N] [--count M] [--agents A] [--actions U] [--calm] [--apart] [--tiers] [--trace [--watch S:I]]

  --from N     the first seed (0)
  --count M    how many (500)
  --agents A   servers in each world (3)
  --actions U  user actions in each world (60)
  --calm       no crashes, no lost messages
  --apart      people leave alone what others made, and nothing is put back: no conflict copies
  --tiers      files give up their content and get it back
  --trace      write down what happens in failing seeds
  --watch S:I  with --trace: after each event of server S, what its catalog says of inode I
";

struct Wanted {
    from: u64,
    count: u64,
    /// Of each of them, but for its seed.
    options: Options,
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Option<Wanted> {
    let mut wanted = Wanted { from: 0, count: 500, options: Options::of(0) };
    if arguments.next()? != "run" {
        return None;
    }
    while let Some(flag) = arguments.next() {
        if flag == "--calm" {
            wanted.options.faults = false;
            continue;
        }
        if flag == "--apart" {
            wanted.options.apart = true;
            continue;
        }
        if flag == "--tiers" {
            wanted.options.tiers = true;
            continue;
        }
        if flag == "--trace" {
            wanted.options.trace = true;
            continue;
        }
        let value = arguments.next()?;
        if flag == "--watch" {
            let (server, inode) = value.split_once(':')?;
            wanted.options.watch = Some((server.parse().ok()?, inode.parse().ok()?));
            continue;
        }
        let value: u64 = value.parse().ok()?;
        match flag.as_str() {
            "--from" => wanted.from = value,
            "--count" => wanted.count = value,
            "--agents" => wanted.options.agents = usize::try_from(value).ok().filter(|agents| *agents > 0)?,
            "--actions" => wanted.options.actions = value,
            _ => return None,
        }
    }
    Some(wanted)
}

#[allow(clippy::print_stdout, clippy::print_stderr)]
fn main() -> ExitCode {
    let Some(wanted) = parse(std::env::args().skip(1)) else {
        eprint!("{USAGE}");
        return ExitCode::from(2);
    };
    let [next, failed, conflicts, crashes, events, tiered, recalled] = std::array::from_fn(|_| AtomicU64::new(0));
    next.store(wanted.from, Ordering::Relaxed);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= wanted.from + wanted.count {
                        return;
                    }
                    let options = Options { seed, ..wanted.options };
                    let outcome = match std::panic::catch_unwind(|| run(options)) {
                        Ok(outcome) => outcome,
                        Err(_) => {
                            failed.fetch_add(1, Ordering::Relaxed);
                            println!("seed {seed}: panicked");
                            continue;
                        }
                    };
                    conflicts.fetch_add(outcome.conflicts as u64, Ordering::Relaxed);
                    crashes.fetch_add(outcome.crashes, Ordering::Relaxed);
                    events.fetch_add(outcome.events, Ordering::Relaxed);
                    tiered.fetch_add(outcome.tiered, Ordering::Relaxed);
                    recalled.fetch_add(outcome.recalled, Ordering::Relaxed);
                    if !outcome.wrong.is_empty() {
                        failed.fetch_add(1, Ordering::Relaxed);
                        println!(
                            "{}seed {seed}: {}",
                            outcome.trace.iter().map(|line| format!("{line}\n")).collect::<String>(),
                            outcome.wrong.join("\n")
                        );
                    }
                }
            });
        }
    });
    let failed = failed.into_inner();
    let (tiered, recalled) = (tiered.into_inner(), recalled.into_inner());
    if wanted.options.tiers && (tiered == 0 || recalled == 0) {
        println!("nothing was tried: {tiered} tiered, {recalled} recalled");
        return ExitCode::FAILURE;
    }
    println!(
        "seeds {}..{}: {} events, {} crashes, {} conflict copies, {} tiered, {} recalled",
        wanted.from,
        wanted.from + wanted.count,
        events.into_inner(),
        crashes.into_inner(),
        conflicts.into_inner(),
        tiered,
        recalled
    );
    println!("{} passed, {failed} failed", wanted.count - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
