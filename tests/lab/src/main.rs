//! The mobile-network lab's program: see `tests/lab/README.md`.

#[cfg(target_os = "linux")]
mod commands;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    commands::main()
}

#[cfg(not(target_os = "linux"))]
fn main() -> std::process::ExitCode {
    eprintln!("whimbrel-lab: the lab needs Linux and its network namespaces");
    std::process::ExitCode::FAILURE
}
