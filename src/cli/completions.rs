//! Completion scripts for the two commands, made from the same types that parse them.

use std::io::{self, Write};

use clap::CommandFactory;
use clap_complete::Shell;

/// Writes the script that completes the command `C` in `shell`.
///
/// # Errors
/// `out` cannot be written.
pub fn write_completions<C: CommandFactory>(shell: Shell, out: &mut dyn Write) -> io::Result<()> {
    let mut command = C::command();
    let name = command.get_name().to_owned();
    // Through memory: the generator panics where its writer fails, and a closed pipe is no bug.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    out.write_all(&script)?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::{Client, Worker};

    #[test]
    fn scripts_name_the_command_and_its_subcommands() {
        let mut script = Vec::new();
        write_completions::<Client>(Shell::Bash, &mut script).expect("memory takes every byte");
        let script = String::from_utf8_lossy(&script);
        for word in ["nightshift", "keygen", "encrypt", "--workdir"] {
            assert!(script.contains(word), "{word} is missing");
        }
        assert!(!script.contains("--scratch"), "an option of the worker only");
        let mut script = Vec::new();
        write_completions::<Worker>(Shell::Zsh, &mut script).expect("memory takes every byte");
        assert!(String::from_utf8_lossy(&script).starts_with("#compdef nightshift-worker"));
    }

    #[test]
    fn a_closed_pipe_is_an_error_and_no_panic() {
        let mut no_room: [u8; 8] = [0; 8];
        let error = write_completions::<Client>(Shell::Fish, &mut no_room.as_mut_slice());
        assert_eq!(error.expect_err("eight bytes cannot hold a script").kind(), io::ErrorKind::WriteZero);
    }
}
