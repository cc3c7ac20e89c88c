//! Runs fuzz targets on changed seeds, with stable Rust and without coverage.
//!
//! Each target runs in a process of its own, which puts every input into a file before it tries it.
//! So whatever ends that process (a panic, a signal, no memory), and whatever does not end
//! at all, its input is there afterwards. Exit status: 0 nothing found, 1 a fault, 2 wrong usage.

use rmtrace_fuzz::mutate::{Random, mutate};
use rmtrace_fuzz::{SCRATCH, TARGETS, Target, scratch_directory, seeds};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

const USAGE: &str = "\
usage: smoke [OPTION...] [FILE...]
  --targets A,B      these targets (default: all but those that fail on purpose)
  --seconds N        time for all targets together (default 20)
  --iterations N     inputs for each target instead of a time
  --seed N           of the generator (default 1): the same seed tries the same inputs
  --input-seconds N  an input that takes longer is a fault (default 10)
  --memory-mb N      a process that holds more is a fault (default 2048)
  --artifacts DIR    where inputs that fail are left (default: artifacts/ beside seeds/)
FILE: only these inputs, unchanged";

struct Options {
    targets: Vec<&'static Target>,
    seconds: f64,
    iterations: Option<u64>,
    seed: u64,
    input_seconds: u64,
    memory_bytes: u64,
    artifacts: PathBuf,
    files: Vec<PathBuf>,
    /// Set in the process of a target: the file for inputs.
    worker: Option<PathBuf>,
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        targets: TARGETS.iter().filter(|target| target.wanted).collect(),
        seconds: 20.0,
        iterations: None,
        seed: 1,
        input_seconds: 10,
        memory_bytes: 2048 << 20,
        artifacts: Path::new(env!("CARGO_MANIFEST_DIR")).join("artifacts"),
        files: Vec::new(),
        worker: None,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        if !word.starts_with("--") {
            options.files.push(word.into());
            continue;
        }
        let value = words.next().ok_or(format!("{word} needs a value"))?;
        let number = || value.parse::<u64>().map_err(|e| format!("{word}: {e}"));
        match word.as_str() {
            "--targets" => {
                let find = |name: &str| TARGETS.iter().find(|target| target.name == name);
                let found: Result<_, String> = value
                    .split(',')
                    .map(|name| find(name).ok_or(format!("there is no target {name}")))
                    .collect();
                options.targets = found?;
            }
            "--seconds" => options.seconds = value.parse().map_err(|e| format!("{word}: {e}"))?,
            "--iterations" => options.iterations = Some(number()?),
            "--seed" => options.seed = number()?,
            "--input-seconds" => options.input_seconds = number()?,
            "--memory-mb" => options.memory_bytes = number()? << 20,
            "--artifacts" => options.artifacts = value.into(),
            "--worker" => options.worker = Some(value.into()),
            _ => return Err(format!("{word} is no option")),
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(error) => {
            eprintln!("{error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    if let Some(file) = &options.worker {
        work(&options, file);
        return ExitCode::SUCCESS;
    }
    let mut faults = 0;
    for target in &options.targets {
        match watch(&options, target) {
            Ok(said) => println!("{:9} {said}", target.name),
            Err(fault) => {
                faults += 1;
                println!("{:9} FAULT: {fault}", target.name);
            }
        }
    }
    ExitCode::from(u8::from(faults > 0))
}

/// Bytes in front of the input: its number, counted from 1, and its length.
const STATE_BYTES: u64 = 16;

/// The process of one target: tries inputs until the time is over.
fn work(options: &Options, state: &Path) {
    let target = options.targets[0];
    let state = File::options()
        .write(true)
        .open(state)
        .expect("the file for inputs");
    let mut tried = 0u64;
    let mut slowest = Duration::ZERO;
    let mut run = |input: &[u8]| {
        tried += 1;
        state
            .write_all_at(input, STATE_BYTES)
            .expect("the input is noted");
        let mut head = tried.to_le_bytes().to_vec();
        head.extend((input.len() as u64).to_le_bytes());
        state.write_all_at(&head, 0).expect("the input is noted");
        let begun = Instant::now();
        (target.function)(input);
        slowest = slowest.max(begun.elapsed());
    };
    let begun = Instant::now();
    if options.files.is_empty() {
        let mut known: Vec<Vec<u8>> = seeds::read(&seeds::directory().join(target.seeds))
            .expect("the seeds")
            .into_iter()
            .map(|(_, bytes)| bytes)
            .collect();
        known.iter().for_each(|seed| run(seed));
        known.push(Vec::new());
        let share = Duration::from_secs_f64(options.seconds);
        let mut number = 0;
        while match options.iterations {
            Some(most) => number < most,
            None => begun.elapsed() < share,
        } {
            let mut random = Random::new(options.seed, number);
            let input = &known[random.below(known.len())];
            let other = &known[random.below(known.len())];
            let input = mutate(&mut random, input, other);
            run(&input);
            number += 1;
        }
    } else {
        for path in &options.files {
            run(&std::fs::read(path).expect("a file that was named"));
        }
    }
    println!(
        "{tried} inputs, {:.0} a second, slowest {:.1} ms",
        tried as f64 / begun.elapsed().as_secs_f64(),
        slowest.as_secs_f64() * 1000.0
    );
}

/// Starts and watches the process of one target. An error is a fault that was found.
fn watch(options: &Options, target: &Target) -> Result<String, String> {
    // What the target leaves when it is ended goes with this.
    let scratch = tempfile::Builder::new()
        .prefix("rmtrace-fuzz-")
        .tempdir_in(scratch_directory())
        .expect("a temporary directory");
    let state_path = scratch.path().join("input");
    let state = File::options()
        .create_new(true)
        .read(true)
        .write(true)
        .open(&state_path)
        .expect("the file for inputs");
    let share = options.seconds / options.targets.len() as f64;
    let mut command = Command::new(std::env::current_exe().expect("the path of this program"));
    command
        .args(["--targets", target.name, "--worker"])
        .arg(&state_path)
        .env(SCRATCH, scratch.path())
        .args(["--seed", &options.seed.to_string()])
        .args(["--seconds", &share.to_string()])
        .args(&options.files)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if let Some(iterations) = options.iterations {
        command.args(["--iterations", &iterations.to_string()]);
    }
    let mut child = command.spawn().expect("this program starts once more");
    // Both are read while it runs, so that it can't be blocked by what it says.
    let out = reader(child.stdout.take());
    let err = reader(child.stderr.take());
    let end = wait(&mut child, &state, options);
    let said = out.join().unwrap_or_default();
    let complaint = err.join().unwrap_or_default();
    match end {
        Ok(()) => Ok(said.trim_end().to_owned()),
        Err(fault) => {
            let kept = keep(options, target, &state);
            let complaint = complaint
                .lines()
                .take(12)
                .collect::<Vec<_>>()
                .join("\n    ");
            Err(format!("{fault}; {kept}\n    {complaint}"))
        }
    }
}

fn reader(pipe: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut text);
        }
        String::from_utf8_lossy(&text).into_owned()
    })
}

/// Waits until the process ends or must be ended.
fn wait(child: &mut Child, state: &File, options: &Options) -> Result<(), String> {
    let mut last = (0, Instant::now());
    loop {
        if let Some(status) = child.try_wait().expect("the target's process is ours") {
            return match (status.code(), status.signal()) {
                (Some(0), _) => Ok(()),
                (Some(code), _) => Err(format!("it ended with status {code}")),
                (None, signal) => Err(format!("signal {} ended it", signal.unwrap_or(0))),
            };
        }
        let number = input_number(state);
        if number != last.0 {
            last = (number, Instant::now());
        }
        let held = resident_bytes(child.id());
        let fault = if last.1.elapsed() > Duration::from_secs(options.input_seconds) {
            format!("an input takes more than {} s", options.input_seconds)
        } else if held > options.memory_bytes {
            format!("it holds {} MB of memory", held >> 20)
        } else {
            std::thread::sleep(Duration::from_millis(20));
            continue;
        };
        let _ = child.kill();
        let _ = child.wait();
        return Err(fault);
    }
}

fn input_number(state: &File) -> u64 {
    let mut number = [0; 8];
    match state.read_exact_at(&mut number, 0) {
        Ok(()) => u64::from_le_bytes(number),
        Err(_) => 0,
    }
}

fn resident_bytes(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    let pages = text
        .split(' ')
        .nth(1)
        .and_then(|word| word.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}

/// Leaves the input that was tried last in a file.
fn keep(options: &Options, target: &Target, state: &File) -> String {
    let number = input_number(state);
    let mut length = [0; 8];
    if number == 0 || state.read_exact_at(&mut length, 8).is_err() {
        return "no input had been tried".to_owned();
    }
    let mut input = vec![0; u64::from_le_bytes(length) as usize];
    let name = format!("{}-{}-{number}", target.name, options.seed);
    let path = options.artifacts.join(name);
    let saved = state
        .read_exact_at(&mut input, STATE_BYTES)
        .and_then(|()| std::fs::create_dir_all(&options.artifacts))
        .and_then(|()| std::fs::write(&path, &input));
    match saved {
        Ok(()) => format!(
            "input {number} is in {path}; again: smoke --targets {} {path}",
            target.name,
            path = path.display()
        ),
        Err(error) => format!("input {number} could not be saved: {error}"),
    }
}
