//! Where the log of the long-running commands goes: standard error, one line an event.
//!
//! Commands that end by themselves log nothing; they answer. It keeps no file: systemd or the shell does.
//!
//! **Invariant:** nothing is logged to standard output, which belongs to answers.

use std::fs::File;
use std::io;
use std::sync::Mutex;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::args::LogLevel;

impl From<LogLevel> for LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Trace => Self::TRACE,
        }
    }
}

/// Where lines go.
#[derive(Debug)]
pub(crate) enum Sink {
    Stderr,
    File(File),
}

/// Starts the log of this process. What libraries say is let through from warnings on. A long-running command ends with a panic of any
/// of its threads: what has lost one would go on as if it did its work, and its successor starts from what is durable.
pub(crate) fn start(level: LogLevel, sink: Sink) {
    if matches!(sink, Sink::Stderr) {
        let told = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            told(panic);
            std::process::abort();
        }));
    }
    let level = LevelFilter::from(level);
    let targets = Targets::new().with_target("isotherm", level).with_default(level.min(LevelFilter::WARN));
    let plain = tracing_subscriber::fmt::layer().with_ansi(false);
    let layer = match sink {
        Sink::Stderr => plain.with_writer(io::stderr).boxed(),
        Sink::File(file) => plain.with_writer(Mutex::new(file)).boxed(),
    };
    // It fails only if there is one already, which then does the work.
    let _ = tracing_subscriber::registry().with(layer.with_filter(targets)).try_init();
}
