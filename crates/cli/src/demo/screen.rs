//! The terminal of the live view: another screen while it lasts, the old one afterwards.
//!
//! It draws whole pictures and knows nothing of what they show.
//!
//! **Invariant:** the terminal is as it was when this is dropped, also after a panic.

use std::io::{IsTerminal, Write, stdout};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// Other screen, no cursor, no line wrap.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J";
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";
const HOME: &str = "\x1b[H";
const CLEAR_TO_END_OF_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";

/// The terminal while the view is on it.
#[derive(Debug)]
pub(super) struct Screen {
    before: Option<Termios>,
}

impl Screen {
    /// Takes the terminal over; none where standard output is no terminal that can do this.
    pub(super) fn enter() -> Option<Self> {
        let is_dumb = std::env::var("TERM").is_ok_and(|term| term == "dumb");
        if !stdout().is_terminal() || is_dumb {
            return None;
        }
        let before = tcgetattr(std::io::stdin()).ok();
        if let Some(before) = &before {
            let mut silent = before.clone();
            // Keys would be written into the picture. Ctrl-C still makes its signal.
            silent.local_modes.remove(LocalModes::ECHO);
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &silent);
        }
        restore_on_panic();
        write(ENTER);
        Some(Self { before })
    }

    /// Columns and lines, as they are now.
    pub(super) fn size() -> (usize, usize) {
        match tcgetwinsize(stdout()) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
            _ => (80, 24),
        }
    }

    /// Shows these lines; what is beyond the screen is cut off below, by the terminal at the right.
    pub(super) fn draw(&self, lines: &[String]) {
        let (_, height) = Self::size();
        let shown: Vec<String> = lines.iter().take(height).map(|line| format!("{line}{CLEAR_TO_END_OF_LINE}")).collect();
        write(&format!("{HOME}{}{CLEAR_BELOW}", shown.join("\r\n")));
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        write(LEAVE);
        if let Some(before) = &self.before {
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, before);
        }
    }
}

/// A panic's message would go to the other screen and vanish with it.
fn restore_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        write(LEAVE);
        report(info);
    }));
}

/// A terminal that is gone cannot be told so.
fn write(text: &str) {
    let mut out = stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
