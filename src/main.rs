//! The program: parse the command line, run it.

use std::process::ExitCode;

fn main() -> ExitCode {
    whimbrel::cli::main()
}
