//! Processes that tests start, monitor, suspend and kill.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
pub use rustix::process::Signal;

use crate::identity::Identity;
use crate::wait::WAIT_TIMEOUT;

/// A builder for a process. [`Process::builder`] creates it.
#[derive(Debug)]
pub struct Builder {
    name: String,
    program: PathBuf,
    args: Vec<OsString>,
    envs: Vec<(OsString, OsString)>,
    directory: Option<PathBuf>,
    log: PathBuf,
    user: Option<String>,
    stop_signal: Signal,
    record: Option<PathBuf>,
}

/// A process that writes its output to a log file.
///
/// The process is killed when this value is dropped, and by the
/// kernel when the test's process dies. A [`recorded`] process is an exception:
/// it outlives both, and `testbed down` stops it.
///
/// [`recorded`]: Builder::recorded
#[derive(Debug)]
pub struct Process {
    name: String,
    identity: Identity,
    log: PathBuf,
    child: Mutex<Child>,
    stop_signal: Signal,
    is_detached: bool,
}

impl Process {
    /// Returns a builder for a process. The process appends its output to `<name>.log` in
    /// `log_directory`.
    pub fn builder(name: impl Into<String>, program: impl Into<PathBuf>, log_directory: &Path) -> Builder {
        let name = name.into();
        Builder {
            log: log_directory.join(format!("{name}.log")),
            name,
            program: program.into(),
            args: Vec::new(),
            envs: Vec::new(),
            directory: None,
            user: None,
            stop_signal: Signal::KILL,
            record: None,
        }
    }

    /// The process id.
    pub fn pid(&self) -> i32 {
        self.identity.pid
    }

    /// The log file of the process.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// All output so far.
    pub fn output(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The exit status of the process; `None` while it runs.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        let mut child = self.child.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        child.try_wait().ok().flatten()
    }

    /// Sends a signal, for example [`Signal::STOP`] to suspend the process
    /// and [`Signal::CONT`] to resume it. After a `STOP` it waits until all threads are stopped:
    /// they stop one after the other, and until the last one has, the process may serve a request.
    ///
    /// # Errors
    /// If the signal may not be sent, or if the process does not stop within [`WAIT_TIMEOUT`].
    pub fn signal(&self, signal: Signal) -> Result<()> {
        if self.exit_status().is_none() {
            self.identity.signal(signal).with_context(|| format!("cannot send {signal:?} to {}", self.name))?;
        }
        let start = Instant::now();
        while signal == Signal::STOP && self.exit_status().is_none() && !self.identity.is_stopped() {
            ensure!(start.elapsed() < WAIT_TIMEOUT, "{} does not stop", self.name);
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Kills the process (SIGKILL) and waits until it has exited.
    ///
    /// # Errors
    /// If it cannot be killed.
    pub fn kill(&self) -> Result<()> {
        self.signal(Signal::KILL)?;
        let mut child = self.child.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        child.wait().with_context(|| format!("cannot wait until {} exits", self.name))?;
        Ok(())
    }

    /// Terminates the process (SIGTERM) and waits until it has exited.
    ///
    /// # Errors
    /// If it has not exited within `limit`. It then keeps running.
    pub async fn terminate(&self, limit: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait(limit).await
    }

    /// Waits until the process has exited.
    ///
    /// # Errors
    /// If it has not exited within `limit`.
    pub async fn wait(&self, limit: Duration) -> Result<ExitStatus> {
        crate::wait_for(&format!("{} to exit", self.name), limit, || async { self.exit_status() })
            .await
            .map_err(|error| self.with_log(error))
    }

    /// Waits until a GET of the URL (plain HTTP) returns 200.
    ///
    /// # Errors
    /// If it does not within `limit` or the process exits first; the error
    /// ends with the last lines of the log.
    pub async fn wait_http(&self, url: &str, limit: Duration) -> Result<()> {
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(2)).build()?;
        self.wait_until(&format!("the status 200 from {url}"), limit, || async {
            let response = client.get(url).send().await.ok()?;
            (response.status() == 200).then_some(())
        })
        .await
    }

    /// Waits until `attempt` returns a value.
    ///
    /// # Errors
    /// If it does not within `limit` or the process exits first; the error
    /// ends with the last lines of the log.
    pub async fn wait_until<T, F, Fut>(&self, what: &str, limit: Duration, mut attempt: F) -> Result<T>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Option<T>>,
    {
        let outcome = crate::wait_for(what, limit, || {
            let exited = self.exit_status();
            let attempt = attempt();
            async move {
                match exited {
                    Some(status) => Some(Err(status)),
                    None => attempt.await.map(Ok),
                }
            }
        })
        .await;
        match outcome {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(status)) => Err(self.with_log(anyhow::anyhow!("{} exited ({status})", self.name))),
            Err(error) => Err(self.with_log(error)),
        }
    }

    fn with_log(&self, error: anyhow::Error) -> anyhow::Error {
        anyhow::anyhow!("{error:#}; the end of {}:\n{}", self.log.display(), tail(&self.log, 25))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_detached {
            return;
        }
        let child = self.child.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        if matches!(child.try_wait(), Ok(None)) {
            // A stopped process handles no signal except KILL until it continues.
            let _ = self.identity.signal_group(self.stop_signal);
            let _ = self.identity.signal_group(Signal::CONT);
            for _ in 0..100 {
                if !matches!(child.try_wait(), Ok(None)) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = self.identity.signal_group(Signal::KILL);
            let _ = child.wait();
        }
    }
}

impl Builder {
    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable. The process inherits the others from the test.
    #[must_use]
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.envs.push((key.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Sets environment variables.
    #[must_use]
    pub fn envs<K: AsRef<OsStr>, V: AsRef<OsStr>>(mut self, envs: impl IntoIterator<Item = (K, V)>) -> Self {
        for (key, value) in envs {
            self = self.env(key, value);
        }
        self
    }

    /// Sets the working directory.
    #[must_use]
    pub fn directory(mut self, directory: &Path) -> Self {
        self.directory = Some(directory.to_owned());
        self
    }

    /// Runs the process as another user (root only).
    #[must_use]
    pub fn user(mut self, user: &str) -> Self {
        self.user = Some(user.to_owned());
        self
    }

    /// Sets the signal that is sent to the process when its [`Process`] is dropped or the
    /// test dies; SIGKILL by default.
    #[must_use]
    pub fn stop_signal(mut self, signal: Signal) -> Self {
        self.stop_signal = signal;
        self
    }

    /// Lets the process outlive this process, and records
    /// it in `<name>.pid` of that directory for a later `testbed down`.
    #[must_use]
    pub fn recorded(mut self, directory: &Path) -> Self {
        self.record = Some(directory.join(format!("{}.pid", self.name)));
        self
    }

    /// Starts the process.
    ///
    /// # Errors
    /// If the program or its log cannot be opened.
    pub fn spawn(self) -> Result<Process> {
        if !self.program.exists() && self.program.components().count() > 1 {
            bail!("{} does not exist", self.program.display());
        }
        let log = open_log(&self.log)?;
        let is_detached = self.record.is_some();
        let mut command = self.command();
        command.args(&self.args).envs(self.envs).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        let child = spawn(command).with_context(|| format!("cannot start {} ({})", self.name, self.program.display()))?;
        let identity = Identity::of(child.id() as i32)
            .with_context(|| format!("{} exited immediately; see {}", self.name, self.log.display()))?;
        if let Some(record) = &self.record {
            identity.store(record)?;
        }
        Ok(Process {
            name: self.name,
            identity,
            log: self.log,
            child: Mutex::new(child),
            stop_signal: self.stop_signal,
            is_detached,
        })
    }

    /// The command, run through setpriv(1). setpriv(1) sets the signal for the death of this process,
    /// and changes the user. Unlike runuser(1), it does not remain as a parent process: the pid is that of
    /// the program.
    fn command(&self) -> Command {
        let mut command = Command::new("setpriv");
        if self.record.is_none() {
            command.arg("--pdeathsig").arg(match self.stop_signal {
                Signal::QUIT => "QUIT",
                Signal::TERM => "TERM",
                Signal::INT => "INT",
                _ => "KILL",
            });
        }
        if let Some(user) = &self.user {
            command.args(["--reuid", user, "--regid", user, "--init-groups"]);
        }
        if self.record.is_none() || self.user.is_some() {
            command.arg("--").arg(&self.program);
            return command;
        }
        Command::new(&self.program)
    }
}

fn open_log(path: &Path) -> Result<File> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    OpenOptions::new().create(true).append(true).open(path).with_context(|| format!("cannot write {}", path.display()))
}

/// Starts a child from a thread that lives as long as this process. The kernel
/// sends the "parent died" signal when the *thread* that forked exits. That could be the thread of
/// a single test that started a shared process.
fn spawn(command: Command) -> io::Result<Child> {
    type Request = (Command, mpsc::Sender<io::Result<Child>>);
    static SPAWNER: OnceLock<Mutex<mpsc::Sender<Request>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, receiver) = mpsc::channel::<Request>();
        std::thread::spawn(move || {
            for (mut command, reply_sender) in receiver {
                let _ = reply_sender.send(command.spawn());
            }
        });
        Mutex::new(sender)
    });
    let (reply_sender, reply) = mpsc::channel();
    spawner.lock().unwrap_or_else(std::sync::PoisonError::into_inner).send((command, reply_sender)).map_err(io::Error::other)?;
    reply.recv().map_err(io::Error::other)?
}

/// The last lines of a file, or the error if it cannot be read.
pub fn tail(path: &Path, lines: usize) -> String {
    match fs::read(path) {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            let all: Vec<&str> = text.lines().collect();
            all[all.len().saturating_sub(lines)..].join("\n")
        }
        Err(error) => error.to_string(),
    }
}

/// The path of one of the workspace's programs, in the target directory of the running test
/// (or program).
///
/// # Errors
/// If the program has not been built.
pub fn binary(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find the running program's path")?;
    // Tests are in target/<profile>/deps, programs in target/<profile>.
    let path = own.ancestors().skip(1).take(2).map(|directory| directory.join(name)).find(|path| path.is_file());
    match path {
        Some(path) => Ok(path),
        None => bail!(
            "{name} is not built beside {}; run `cargo build --workspace` (with --release if these tests are)",
            own.display()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_that_exits_early_shows_the_end_of_its_log() {
        let directory = tempfile::tempdir().unwrap();
        let process =
            Process::builder("broken", "/bin/sh", directory.path()).args(["-c", "echo no such thing; exit 3"]).spawn().unwrap();
        let error = process.wait_http("http://127.0.0.1:1/readyz", Duration::from_secs(5)).await.unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("no such thing") && text.contains("exit status: 3"), "{text}");
    }

    #[test]
    fn a_dropped_process_is_killed_even_if_it_is_stopped() {
        let directory = tempfile::tempdir().unwrap();
        let process = Process::builder("sleeper", "/bin/sleep", directory.path()).arg("60").spawn().unwrap();
        process.signal(Signal::STOP).unwrap();
        let identity = process.identity.clone();
        assert!(identity.is_alive() && identity.is_stopped());
        drop(process);
        assert!(!identity.is_alive());
    }
}
