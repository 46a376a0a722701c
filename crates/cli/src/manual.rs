//! The manual page and the completions, made from the definition of the commands.
//!
//! It holds no text of its own but headings.
//!
//! **Invariant:** every command that help shows is in the manual page.

use clap::{Command, CommandFactory};

use crate::args::Arguments;
use crate::failure::Failure;

/// The page in roff, for `man -l` or `/usr/share/man/man1/isotherm.1`.
pub(crate) fn page() -> Result<String, Failure> {
    let mut command = Arguments::command();
    command.build();
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut page)?;
    let mut text = String::from_utf8_lossy(&page).into_owned();
    text.push_str("\n.SH COMMANDS IN DETAIL\n");
    describe(&mut command, &mut text);
    Ok(text)
}

/// Appends a section for each command that does something.
fn describe(command: &mut Command, text: &mut String) {
    if !command.has_subcommands() {
        let name = command.get_bin_name().unwrap_or_else(|| command.get_name()).to_owned();
        let help = command.render_long_help().to_string();
        text.push_str(&format!(".SS {}\n.nf\n{}.fi\n", escape(&name), escape(&help)));
        return;
    }
    for sub in command.get_subcommands_mut().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help") {
        describe(sub, text);
    }
}

/// Text that roff shows as it is.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        if line.starts_with(['.', '\'']) {
            out.push_str("\\&");
        }
        out.push_str(&line.replace('\\', "\\e").replace('-', "\\-"));
        out.push('\n');
    }
    if !text.contains('\n') {
        out.pop();
    }
    out
}

/// The completion script of a shell.
pub(crate) fn completions(shell: clap_complete::Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "isotherm", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_page_holds_every_command_and_the_exit_codes() {
        let page = page().unwrap();
        for command in ["isotherm service run", "isotherm endpoint confirm\\-deletes", "isotherm wait", "isotherm demo"] {
            assert!(page.contains(&format!(".SS {command}\n")), "{command}");
        }
        assert!(page.contains("cannot reach the agent or the service"), "{page}");
        assert!(!page.contains("completions"), "hidden commands stay hidden");
    }

    #[test]
    fn roff_takes_nothing_for_a_request() {
        assert_eq!(escape(".a\n'b\n\\c\n"), "\\&.a\n\\&'b\n\\ec\n");
    }

    #[test]
    fn completions_know_the_commands() {
        for shell in [clap_complete::Shell::Bash, clap_complete::Shell::Zsh, clap_complete::Shell::Fish] {
            assert!(completions(shell).contains("confirm-deletes"), "{shell}");
        }
    }
}
