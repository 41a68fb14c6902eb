//! `diptych backup` and `diptych restore`.

mod manifest;

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use diptych_client::Error;
use diptych_files::{FileError, StagedFolder};
use diptych_proto::v1 as wire;
use indicatif::ProgressBar;

use crate::backup_args::{BackupArgs, RestoreArgs};
use crate::{local, output, remote};
use manifest::{Entry, Manifest};

pub fn run(args: &BackupArgs) -> Result<ExitCode> {
    let started = Instant::now();
    let manifest = remote::runtime()?.block_on(receive(args))?;
    output::line(&format!(
        "backed up {} in {}, {}, up to change {}, in {}: {}",
        output::count(manifest.records, "record"),
        output::count(manifest.files.len() as u64, "file"),
        output::mebibytes(manifest.bytes()),
        manifest.seq,
        output::seconds(started.elapsed()),
        args.out.display()
    ))?;
    Ok(ExitCode::SUCCESS)
}

pub fn run_restore(args: &RestoreArgs) -> Result<ExitCode> {
    let manifest = Manifest::read(&args.backup)?;
    match &args.data {
        Some(data) if !args.check => restore(args, &manifest, data),
        _ => check(args, &manifest),
    }
}

/// A new folder, or why there cannot be one.
pub fn staged(target: &Path) -> Result<StagedFolder> {
    StagedFolder::create(target).map_err(|error| occupied(target, error))
}

/// Puts a folder in its place, or says why that cannot be.
pub fn publish(folder: StagedFolder, target: &Path) -> Result<()> {
    folder.publish().map_err(|error| occupied(target, error))
}

fn occupied(target: &Path, error: FileError) -> anyhow::Error {
    match error.source.kind() {
        ErrorKind::DirectoryNotEmpty => {
            anyhow::anyhow!("{} is not empty; name a new or empty folder", target.display())
        }
        ErrorKind::NotADirectory => {
            anyhow::anyhow!("{} is a file; name a new or empty folder", target.display())
        }
        _ => error.into(),
    }
}

async fn receive(args: &BackupArgs) -> Result<Manifest> {
    let folder = staged(&args.out)?;
    let mut client = local::client(&args.place).await?.backups();
    let stream = client.backup(wire::BackupRequest {}).await.map_err(Error::from)?;
    let mut stream = stream.into_inner();
    let mut receiver = Receiver::new(folder.path());
    let cut = "the backup was cut off, and nothing was written; run it again";
    while let Some(message) = stream.message().await.map_err(Error::from).context(cut)? {
        let event = message.event.context("the server sends what this program does not know; update it")?;
        receiver.take(event)?;
    }
    let manifest = receiver.finish()?;
    manifest.write(folder.path())?;
    publish(folder, &args.out)?;
    Ok(manifest)
}

/// Writes the files of a stream, and holds it to what it says.
struct Receiver {
    folder: PathBuf,
    manifest: Option<Manifest>,
    open: Option<Open>,
    bar: ProgressBar,
    ended: bool,
}

struct Open {
    file: File,
    path: String,
    bytes: u64,
    written: u64,
    hasher: blake3::Hasher,
}

impl Receiver {
    fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            manifest: None,
            open: None,
            bar: ProgressBar::hidden(),
            ended: false,
        }
    }

    fn take(&mut self, event: wire::backup_response::Event) -> Result<()> {
        use wire::backup_response::Event;
        match (event, &mut self.manifest, self.open.take()) {
            (Event::Start(start), none @ None, None) => {
                self.bar = output::download_bar(Some(start.bytes));
                *none = Some(Manifest::new(start.version, start.model_id, start.seq, start.records));
            }
            (Event::FileStart(start), Some(_), None) => {
                let path = manifest::place(&self.folder, &start.path)?;
                let file =
                    File::create_new(&path).with_context(|| format!("cannot create {}", path.display()))?;
                let (path, bytes) = (start.path, start.bytes);
                self.open = Some(Open { file, path, bytes, written: 0, hasher: blake3::Hasher::new() });
            }
            (Event::Chunk(chunk), Some(_), Some(mut open)) => {
                open.file.write_all(&chunk).with_context(|| format!("cannot write {}", open.path))?;
                open.hasher.update(&chunk);
                open.written += chunk.len() as u64;
                self.bar.inc(chunk.len() as u64);
                self.open = Some(open);
            }
            (Event::FileEnd(end), Some(manifest), Some(open)) => {
                let digest = open.hasher.finalize();
                if end.digest != digest.as_bytes() || open.written != open.bytes {
                    bail!("{} did not arrive as it was sent; run the backup again", open.path);
                }
                open.file.sync_all().with_context(|| format!("cannot write {}", open.path))?;
                let blake3 = digest.to_hex().to_string();
                manifest.files.push(Entry { path: open.path, bytes: open.bytes, blake3 });
            }
            (Event::End(end), Some(manifest), None) => {
                if (end.files, end.bytes) != (manifest.files.len() as u64, manifest.bytes()) {
                    bail!("not all files have arrived; run the backup again");
                }
                self.ended = true;
            }
            _ => bail!("the server's messages are out of order; run the backup again"),
        }
        Ok(())
    }

    fn finish(self) -> Result<Manifest> {
        self.bar.finish_and_clear();
        let whole = self.manifest.filter(|_| self.ended);
        whole.context("the server ended the stream early, so there is no backup; run it again")
    }
}

fn check(args: &RestoreArgs, manifest: &Manifest) -> Result<ExitCode> {
    let bar = output::download_bar(Some(manifest.bytes()));
    let mut problems = 0;
    for entry in &manifest.files {
        let checked = entry.check(&args.backup, |piece| {
            bar.inc(piece.len() as u64);
            Ok(())
        });
        if let Err(error) = checked {
            problems += 1;
            bar.suspend(|| output::line(&format!("problem: {}", output::whole_error(&error))))?;
        }
    }
    bar.finish_and_clear();
    if problems > 0 {
        output::line(&format!("{}: do not rely on this backup", output::count(problems, "problem")))?;
        return Ok(ExitCode::FAILURE);
    }
    output::line(&format!("{} is whole: {}", args.backup.display(), describe(manifest)))?;
    Ok(ExitCode::SUCCESS)
}

fn restore(args: &RestoreArgs, manifest: &Manifest, data: &Path) -> Result<ExitCode> {
    let started = Instant::now();
    let folder = staged(data)?;
    let bar = output::download_bar(Some(manifest.bytes()));
    for entry in &manifest.files {
        entry.copy(&args.backup, folder.path())?;
        bar.inc(entry.bytes);
    }
    bar.finish_and_clear();
    publish(folder, data)?;
    let took = output::seconds(started.elapsed());
    output::line(&format!("restored {} in {took} to {}", describe(manifest), data.display()))?;
    output::line(&format!(
        "start it with the model that it was made with: diptych serve --data {} --model MODEL_DIR",
        data.display()
    ))?;
    Ok(ExitCode::SUCCESS)
}

fn describe(manifest: &Manifest) -> String {
    format!(
        "{} in {}, {}, up to change {}, of model {}",
        output::count(manifest.records, "record"),
        output::count(manifest.files.len() as u64, "file"),
        output::mebibytes(manifest.bytes()),
        manifest.seq,
        manifest.model_id.chars().take(12).collect::<String>()
    )
}
