//! `rmtrace accesses`: runs a command under Valgrind's lackey with the recorder in it, and matches every load and store to the
//! block it is of. The arguments, the processes and the files are here; matching is `rmtrace-accesses`'.

mod lackey;
mod show;

use super::EXIT_FAILED;
use super::pack::Part;
use super::program;
use super::record::{EXIT_NOT_FOUND, EXIT_OWN, exit_as, find_library};
use anyhow::{Context, bail};
use lackey::{Usage, Valgrind};
use rmtrace::accesses::summary::Cost;
use rmtrace::accesses::{Matcher, Summary, Writer};
use rmtrace::collector::{remove, sys};
use rmtrace::file::TraceReader;
use rmtrace::file::gather::{PackOptions, pack};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::BufWriter;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Record every memory access of a command, by the blocks they are of; or show what was recorded.
///
/// The command runs in Valgrind (the tool lackey), some hundred times slower than alone, with the recorder in it. Each load
/// and store is matched to the block that was live at its address at that moment. Two files come of it: FILE.rma with
/// reads, writes and times of use of each block, and FILE.rmt, the trace of the same run. `rmtrace replay FILE.rmt
/// --lock accesses:FILE.rma` locks blocks when they were used.
///
/// Only the command's own process is followed, not those it starts (give the compiler proper, `cc1`, rather than `gcc`); their calls are in
/// the trace. The exit status is the command's; 125 if recording fails, 127 if the command isn't found.
#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// File of accesses; the trace beside it ends in .rmt [default: ./<program>-<date-time>.rma]
    #[arg(short, long, value_name = "FILE.rma", conflicts_with = "show")]
    output: Option<PathBuf>,
    /// Accesses of a block at most so many instructions apart are one time of use: it is locked from the first to the last. 3,000 are about a
    /// microsecond
    #[arg(long, value_name = "N", default_value_t = 3_000)]
    gap: u64,
    /// Run the command once without Valgrind before, to say how many times slower it is in it
    #[arg(long, conflicts_with = "show")]
    compare: bool,
    /// Show what is in a file instead
    #[arg(long, value_name = "FILE.rma", conflicts_with = "command")]
    show: Option<PathBuf>,
    /// With --show: every block, a line of JSON each
    #[arg(long, requires = "show")]
    blocks: bool,
    /// With --show: JSON (docs/accesses.md) instead of text
    #[arg(long, requires = "show")]
    json: bool,
    /// Say nothing but errors
    #[arg(short, long)]
    quiet: bool,
    /// The command and its arguments
    #[arg(
        trailing_var_arg = true,
        required_unless_present = "show",
        value_name = "CMD"
    )]
    command: Vec<OsString>,
}

const AFTER_HELP: &str = "\
Examples:
  rmtrace accesses -o json.rma -- python3 -c 'import json; json.loads(\"[1,2]\")'
  rmtrace accesses -o cc1.rma -- $(gcc -print-prog-name=cc1) -quiet hello.i -o hello.s
  rmtrace accesses --show json.rma
  rmtrace replay json.rmt -a rmalloc --lock accesses:json.rma --compact-at peak";

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    if let Some(path) = &args.show {
        return show::run(path, args.blocks, args.json);
    }
    match record(&args) {
        Ok(code) => Ok(code),
        Err(error) => {
            eprintln!("rmtrace: {error:#}");
            Ok(ExitCode::from(EXIT_OWN))
        }
    }
}

/// `./<program>-<date-time>.rma`
fn default_output(command: &OsStr) -> PathBuf {
    let mut name = Path::new(command)
        .file_name()
        .unwrap_or(OsStr::new("program"))
        .to_owned();
    name.push(
        jiff::Zoned::now()
            .strftime("-%Y%m%d-%H%M%S.rma")
            .to_string(),
    );
    Path::new(".").join(name)
}

fn record(args: &Args) -> anyhow::Result<ExitCode> {
    let output = args
        .output
        .clone()
        .unwrap_or_else(|| default_output(&args.command[0]));
    let trace_path = output.with_extension("rmt");
    if trace_path == output {
        bail!(
            "{}: is the name of the trace beside the file; give another one, as FILE.rma",
            output.display()
        );
    }
    let valgrind = Valgrind::find()?;
    let library = find_library()?;
    if program::find_in_path(&args.command[0]).is_none_or(|path| !path.is_file()) {
        eprintln!(
            "rmtrace: {}: no such command",
            args.command[0].to_string_lossy()
        );
        return Ok(ExitCode::from(EXIT_NOT_FOUND));
    }
    if let Some(obstacle) = program::inspect_command(&args.command) {
        bail!("{obstacle}");
    }
    sys::catch_signals();
    let plain = args.compare.then(|| plain_run(&args.command)).transpose()?;
    let place = tempfile_beside(&output)?;
    let part = Part::of(&output, ".part");
    let recorded = follow(args, &valgrind, &library, place.path(), &part, &output);
    let (matcher, run) = match recorded {
        Ok(recorded) => recorded,
        Err(error) => {
            part.remove();
            let _ = remove_runs(place.path());
            return Err(error);
        }
    };
    let finished = complete(matcher, &run, plain, place.path(), &trace_path);
    let removed = remove_runs(place.path());
    let (file, summary) = match finished {
        Ok(finished) => finished,
        Err(error) => {
            part.remove();
            return Err(error);
        }
    };
    let bytes = part.complete(&file, &output, false)?;
    removed.context("the run directory can't be removed")?;
    if !args.quiet {
        eprint!(
            "{}",
            show::text(&summary, &output.display().to_string(), bytes)
        );
    }
    Ok(exit_as(run.status.into_raw()))
}

/// A directory for the run, beside the output.
fn tempfile_beside(output: &Path) -> anyhow::Result<Place> {
    let mut path = output.as_os_str().to_owned();
    path.push(format!(".{}.run", std::process::id()));
    let path = PathBuf::from(path);
    std::fs::create_dir(&path).with_context(|| format!("{} can't be made", path.display()))?;
    Ok(Place(std::path::absolute(path)?))
}

/// A directory that goes when it is empty.
struct Place(PathBuf);

impl Place {
    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.0.join(lackey::LIBRARY_LINK));
        let _ = std::fs::remove_dir(&self.0);
    }
}

fn runs_in(place: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(place).into_iter().flatten().flatten();
    let runs = entries.map(|entry| entry.path());
    runs.filter(|path| path.extension() == Some(OsStr::new("rmspool")))
        .collect()
}

fn remove_runs(place: &Path) -> std::io::Result<()> {
    runs_in(place).iter().try_for_each(|run| remove(run))
}

/// Runs the command alone.
fn plain_run(command: &[OsString]) -> anyhow::Result<Usage> {
    let before = Usage::now();
    let status = Command::new(&command[0]).args(&command[1..]).status();
    status.with_context(|| command[0].to_string_lossy().into_owned())?;
    Ok(before.since())
}

/// How the command ran under Valgrind.
struct Run {
    pid: u32,
    status: std::process::ExitStatus,
    usage: Usage,
    stream_bytes: u64,
    reader_cpu_ns: u64,
}

type Matching = Matcher<BufWriter<File>>;

fn follow(
    args: &Args,
    valgrind: &Valgrind,
    library: &Path,
    place: &Path,
    part: &Part,
    output: &Path,
) -> anyhow::Result<(Matching, Run)> {
    let before = Usage::now();
    let began_cpu = sys::cpu_ns();
    let mut started = valgrind.start(&args.command, library, place)?;
    let pid = started.pid();
    let maps = format!("/proc/{pid}/maps");
    let writer = Writer::new(BufWriter::new(part.create()?), output)?;
    let mappings = Box::new(move || std::fs::read_to_string(&maps).ok());
    let mut matcher = Matcher::new(writer, args.gap, mappings);
    let mut progress = show::Running::new(!args.quiet);
    let stream_bytes = started.read(place, &mut matcher, &mut progress)?;
    progress.end();
    let status = started.wait()?;
    if let Some(error) = matcher.error() {
        return Err(error.into());
    }
    if !matcher.has_spool() {
        bail!(
            "{}: the recorder was not loaded in it: the program clears its environment, or Valgrind can't run it",
            args.command[0].to_string_lossy()
        );
    }
    let run = Run {
        pid,
        status,
        usage: before.since(),
        stream_bytes,
        reader_cpu_ns: sys::cpu_ns() - began_cpu,
    };
    Ok((matcher, run))
}

/// Makes the trace of the run and completes the file of accesses, which names its process.
fn complete(
    matcher: Matching,
    run: &Run,
    plain: Option<Usage>,
    place: &Path,
    trace_path: &Path,
) -> anyhow::Result<(File, Summary)> {
    let runs = runs_in(place);
    let [run_dir] = runs.as_slice() else {
        bail!(
            "{} run directories in {}, where one was expected",
            runs.len(),
            place.display()
        );
    };
    let part = Part::of(trace_path, ".part");
    let packed = pack(
        run_dir,
        part.create()?,
        &PackOptions::default(),
        &mut |_| {},
    );
    let (file, report) = match packed {
        Ok(packed) => packed,
        Err(error) => {
            part.remove();
            return Err(error.into());
        }
    };
    part.complete(&file, trace_path, false)?;
    if report.dropped != 0 {
        eprintln!(
            "rmtrace: WARNING: {} calls were not recorded: accesses of their blocks are counted as other memory",
            report.dropped
        );
    }
    let reader = rmtrace::file::open(trace_path)?;
    let process = process_of(&reader, run.pid, matcher.calls());
    let name = trace_path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let (out, summary) = matcher.finish(|summary| {
        summary.process = process.unwrap_or_default();
        summary.trace = name;
        summary.cost = Cost {
            stream_bytes: run.stream_bytes,
            wall_ns: run.usage.wall_ns,
            cpu_ns: run.usage.cpu_ns,
            reader_cpu_ns: run.reader_cpu_ns,
            plain_wall_ns: plain.map_or(0, |plain| plain.wall_ns),
            plain_cpu_ns: plain.map_or(0, |plain| plain.cpu_ns),
        };
    })?;
    let file = out.into_inner().map_err(|error| error.into_error())?;
    let process = process.context("the trace has no process with as many calls as the stream")?;
    agrees(&reader, process, &summary)?;
    tell_others(&reader, process);
    Ok((file, summary))
}

/// The process that was followed.
fn process_of(reader: &TraceReader, pid: u32, calls: u64) -> Option<u32> {
    let processes = reader.processes().iter();
    let mut own = processes
        .filter(|process| process.pid_inside == pid && reader.calls_of(process.number) == calls);
    own.next().map(|process| process.number)
}

/// Says that most was done by processes that were not followed.
fn tell_others(reader: &TraceReader, process: u32) {
    let own = reader.calls_of(process);
    let busiest = reader
        .processes()
        .iter()
        .max_by_key(|other| reader.calls_of(other.number));
    let Some(other) = busiest.filter(|other| reader.calls_of(other.number) > own) else {
        return;
    };
    let pid = reader.process(process).map(|process| process.pid_inside);
    let how = match pid == Some(other.pid_inside) {
        true => "became another program",
        false => "started another program",
    };
    let line = match other.arguments.is_empty() {
        true => other.program.clone(),
        false => other.arguments.join(" "),
    };
    eprintln!(
        "rmtrace: WARNING: the command {how} that made {} calls, and accesses are followed in the command alone, which made {own}; \
         give that program itself: {line}",
        reader.calls_of(other.number)
    );
}

/// The stream's calls are those of the trace: each thread's number of them, and their content.
fn agrees(reader: &TraceReader, process: u32, summary: &Summary) -> anyhow::Result<()> {
    let threads = reader
        .process(process)
        .map(|process| process.threads.as_slice())
        .unwrap_or_default();
    for thread in threads {
        let seen = summary
            .threads
            .get(thread.number as usize)
            .cloned()
            .unwrap_or_default();
        let counted = &thread.counters;
        if seen.calls != counted.total() || seen.sum != counted.sum {
            bail!(
                "thread {}: {} calls were seen in the stream, the trace has {} or others; this is an error in rmtrace",
                thread.number,
                seen.calls,
                counted.total()
            );
        }
    }
    Ok(())
}

/// What `--show` ends with when the file can't be read.
const EXIT_UNREADABLE: u8 = EXIT_FAILED;
