//! The canvas: a tree, and what is staged over it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use gix::ObjectId;
use gix::objs::tree::EntryKind;
use serde::{Deserialize, Serialize};

use crate::error::{Error, chain};
use crate::patch::{self, Body, Drift};
use crate::path::RepoPath;

/// What a canvas may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest file, in bytes.
    pub file_bytes: u64,
    /// The most that all staged edits may hold at once, in bytes.
    pub staged_bytes: u64,
}

impl Default for Limits {
    /// Files of 32 MiB, and 256 MiB staged.
    fn default() -> Self {
        Self {
            file_bytes: 32 << 20,
            staged_bytes: 256 << 20,
        }
    }
}

/// The id of a tree: what a workspace holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TreeId(pub(crate) ObjectId);

impl fmt::Display for TreeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for TreeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FromStr for TreeId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let id =
            ObjectId::from_hex(text.as_bytes()).map_err(Error::git("read the id of a tree"))?;
        Ok(Self(id))
    }
}

/// All that brings a canvas back: what a journal keeps of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The commit that it was opened over.
    pub base: String,
    /// The tree of its last step.
    pub tree: String,
}

/// What kind of thing is at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A file.
    File,
    /// A file that can be run.
    Executable,
    /// A symbolic link, whose content is where it leads.
    Symlink,
    /// A commit of another repository (a submodule), which is left alone.
    Submodule,
}

impl Kind {
    fn of(kind: EntryKind) -> Option<Self> {
        match kind {
            EntryKind::Tree => None,
            EntryKind::Blob => Some(Self::File),
            EntryKind::BlobExecutable => Some(Self::Executable),
            EntryKind::Link => Some(Self::Symlink),
            EntryKind::Commit => Some(Self::Submodule),
        }
    }

    pub(crate) fn entry(self) -> EntryKind {
        match self {
            Self::File => EntryKind::Blob,
            Self::Executable => EntryKind::BlobExecutable,
            Self::Symlink => EntryKind::Link,
            Self::Submodule => EntryKind::Commit,
        }
    }

    /// The mode as git writes it.
    #[must_use]
    pub fn mode(self) -> u32 {
        self.entry() as u32
    }

    fn of_mode(mode: u32) -> Self {
        match mode {
            0o100_755 => Self::Executable,
            0o120_000 => Self::Symlink,
            _ => Self::File,
        }
    }
}

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// What kind of thing it is.
    pub kind: Kind,
    /// What it holds; of a symlink, where it leads.
    pub bytes: Vec<u8>,
}

/// A path, and what kind of thing is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where.
    pub path: RepoPath,
    /// What.
    pub kind: Kind,
}

/// How a patch fitted, for one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patched {
    /// Which file: its name afterwards, or before if it is gone.
    pub path: RepoPath,
    /// Hunks that were not where they said, or not quite as they said.
    pub drifts: Vec<Drift>,
}

/// An edit that no tree has yet.
#[derive(Clone, Debug)]
enum Staged {
    Content(Content),
    Removed,
}

/// A virtual workspace. See the [crate](crate)'s own words.
pub struct Canvas {
    /// Our own objects, with the user's as alternates.
    pub(crate) store: gix::Repository,
    /// The user's repository.
    pub(crate) theirs: PathBuf,
    pub(crate) base: ObjectId,
    pub(crate) tree: ObjectId,
    staged: BTreeMap<RepoPath, Staged>,
    pub(crate) limits: Limits,
}

impl fmt::Debug for Canvas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Canvas")
            .field("theirs", &self.theirs)
            .field("base", &self.base)
            .field("tree", &self.tree)
            .field("staged", &self.staged.len())
            .finish_non_exhaustive()
    }
}

/// Opens a repository as it is and not as somebody's settings want it: what a canvas does depends on nothing outside.
pub(crate) fn open_repository(path: &Path) -> Result<gix::Repository, Error> {
    let failed = |error: gix::open::Error| Error::Repository {
        path: path.to_owned(),
        why: chain(&error),
    };
    let options = gix::open::Options::isolated().open_path_as_is(false);
    let mut repository = gix::open_opts(path, options).map_err(failed)?;
    repository.object_cache_size_if_unset(4 << 20);
    Ok(repository)
}

impl Canvas {
    /// Opens a canvas over a commit of a repository. Our objects go to the directory `store`, which is made if it is not there.
    ///
    /// # Errors
    ///
    /// If the repository cannot be opened, has no such commit, or `store` cannot be made.
    pub fn open(
        repository: &Path,
        store: &Path,
        revision: &str,
        limits: Limits,
    ) -> Result<Self, Error> {
        let theirs = open_repository(repository)?;
        let failed = |why: String| Error::Revision {
            revision: revision.to_owned(),
            why,
        };
        let id = theirs
            .rev_parse_single(revision)
            .map_err(|error| failed(chain(&error)))?;
        let commit = id.object().map_err(|error| failed(chain(&error)))?;
        let commit = commit
            .peel_to_commit()
            .map_err(|error| failed(chain(&error)))?;
        let tree = commit
            .tree_id()
            .map_err(|error| failed(chain(&error)))?
            .detach();
        Self::over(&theirs, store, commit.id, tree, limits)
    }

    /// Brings back a canvas as it was at a step.
    ///
    /// # Errors
    ///
    /// If the repository or the store cannot be opened, or lack what the state names.
    pub fn resume(
        repository: &Path,
        store: &Path,
        state: &State,
        limits: Limits,
    ) -> Result<Self, Error> {
        let theirs = open_repository(repository)?;
        let base = ObjectId::from_hex(state.base.as_bytes()).map_err(Error::git("read a state"))?;
        let TreeId(tree) = state.tree.parse()?;
        let canvas = Self::over(&theirs, store, base, tree, limits)?;
        canvas.find_tree(tree)?;
        Ok(canvas)
    }

    fn over(
        theirs: &gix::Repository,
        store: &Path,
        base: ObjectId,
        tree: ObjectId,
        limits: Limits,
    ) -> Result<Self, Error> {
        let objects = theirs.common_dir().join("objects");
        Ok(Self {
            store: open_store(store, &objects)?,
            theirs: theirs.path().to_owned(),
            base,
            tree,
            staged: BTreeMap::new(),
            limits,
        })
    }

    /// The tree of the last step.
    #[must_use]
    pub fn tree(&self) -> TreeId {
        TreeId(self.tree)
    }

    /// The tree of the commit that the canvas was opened over.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub fn base_tree(&self) -> Result<TreeId, Error> {
        let commit = self.store.find_commit(self.base);
        let commit = commit.map_err(Error::git("read the base commit"))?;
        let id = commit
            .tree_id()
            .map_err(Error::git("read the base commit"))?;
        Ok(TreeId(id.detach()))
    }

    /// What brings the canvas back as it was at its last step.
    #[must_use]
    pub fn state(&self) -> State {
        State {
            base: self.base.to_string(),
            tree: self.tree.to_string(),
        }
    }

    /// Whether anything was edited since the last step.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        !self.staged.is_empty()
    }

    pub(crate) fn find_tree(&self, id: ObjectId) -> Result<gix::Tree<'_>, Error> {
        self.store.find_tree(id).map_err(Error::git("read a tree"))
    }

    /// What is at a path, staged edits included.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or is larger than a file may be.
    pub fn read(&self, path: &RepoPath) -> Result<Option<Content>, Error> {
        match self.staged.get(path) {
            Some(Staged::Content(content)) => return Ok(Some(content.clone())),
            Some(Staged::Removed) => return Ok(None),
            None => {}
        }
        // What lies below something that became a file is gone.
        if path.ancestors().any(|above| self.is_staged_file(above)) {
            return Ok(None);
        }
        self.read_in(self.tree, path)
    }

    fn is_staged_file(&self, path: &[u8]) -> bool {
        let staged = RepoPath::new(path)
            .ok()
            .and_then(|path| self.staged.get(&path));
        matches!(staged, Some(Staged::Content(_)))
    }

    fn read_in(&self, tree: ObjectId, path: &RepoPath) -> Result<Option<Content>, Error> {
        let tree = self.find_tree(tree)?;
        let found = tree.lookup_entry(path.components());
        let Some(entry) = found.map_err(Error::git("look a path up"))? else {
            return Ok(None);
        };
        let Some(kind) = Kind::of(entry.mode().kind()) else {
            return Ok(None);
        };
        if kind == Kind::Submodule {
            return Ok(Some(Content {
                kind,
                bytes: entry.object_id().to_string().into_bytes(),
            }));
        }
        self.read_blob(entry.object_id(), &path.to_string())
            .map(|bytes| Some(Content { kind, bytes }))
    }

    pub(crate) fn read_blob(&self, id: ObjectId, name: &str) -> Result<Vec<u8>, Error> {
        let header = self
            .store
            .find_header(id)
            .map_err(Error::git("read a file"))?;
        if header.size() > self.limits.file_bytes {
            return Err(Error::TooLarge {
                what: format!("`{name}`"),
                found: header.size(),
                limit: self.limits.file_bytes,
            });
        }
        let mut blob = self
            .store
            .find_blob(id)
            .map_err(Error::git("read a file"))?;
        Ok(blob.take_data())
    }

    /// All that is below a directory, or anywhere, in the order of their paths.
    ///
    /// # Errors
    ///
    /// If a tree cannot be read.
    pub fn list(&self, below: Option<&RepoPath>) -> Result<Vec<Entry>, Error> {
        let mut entries = BTreeMap::new();
        let is_meant = |path: &RepoPath| below.is_none_or(|below| path.is_below(below.as_bytes()));
        // Of a large repository only what lies there is read.
        if let Some(tree) = self.tree_at(below)? {
            let prefix = below.map_or(&[][..], RepoPath::as_bytes);
            self.entries_below(tree, prefix, &mut |path, kind, _| {
                entries.insert(path, kind);
            })?;
        }
        for (path, staged) in self.staged.iter().filter(|(path, _)| is_meant(path)) {
            match staged {
                Staged::Removed => {
                    entries.remove(path);
                }
                Staged::Content(content) => {
                    entries.retain(|other, _| !other.is_below(path.as_bytes()));
                    entries.insert(path.clone(), content.kind);
                }
            }
        }
        let entries = entries.into_iter();
        Ok(entries.map(|(path, kind)| Entry { path, kind }).collect())
    }

    /// The directory at a path as the last step has it, unless a staged edit has put a file in its place or above it.
    fn tree_at(&self, path: Option<&RepoPath>) -> Result<Option<ObjectId>, Error> {
        let Some(path) = path else {
            return Ok(Some(self.tree));
        };
        let mut way = path.ancestors().chain([path.as_bytes()]);
        if way.any(|above| self.is_staged_file(above)) {
            return Ok(None);
        }
        let tree = self.find_tree(self.tree)?;
        let found = tree.lookup_entry(path.components());
        let found = found.map_err(Error::git("look a path up"))?;
        let directory = found.filter(|entry| entry.mode().is_tree());
        Ok(directory.map(|entry| entry.object_id()))
    }

    /// Visits all that a tree has but trees. Paths that no checkout would write are passed over.
    pub(crate) fn entries_of(
        &self,
        tree: ObjectId,
        visit: &mut impl FnMut(RepoPath, Kind, ObjectId),
    ) -> Result<(), Error> {
        self.entries_below(tree, b"", visit)
    }

    /// The same of a tree that is a directory, whose path goes before those in it.
    fn entries_below(
        &self,
        tree: ObjectId,
        directory: &[u8],
        visit: &mut impl FnMut(RepoPath, Kind, ObjectId),
    ) -> Result<(), Error> {
        let tree = self.find_tree(tree)?;
        let entries = tree.traverse().breadthfirst.files();
        for entry in entries.map_err(Error::git("read a tree"))? {
            let path = match directory {
                b"" => entry.filepath.to_vec(),
                directory => [directory, b"/", &entry.filepath].concat(),
            };
            let (Some(kind), Ok(path)) = (Kind::of(entry.mode.kind()), RepoPath::new(path)) else {
                continue;
            };
            visit(path, kind, entry.oid);
        }
        Ok(())
    }

    /// Writes a file. One that is there keeps being executable, or a symlink, unless `kind` says what it is to be.
    ///
    /// # Errors
    ///
    /// If it is too large, or something that is no file stands in its way.
    pub fn write(
        &mut self,
        path: &RepoPath,
        bytes: impl Into<Vec<u8>>,
        kind: Option<Kind>,
    ) -> Result<(), Error> {
        let bytes = bytes.into();
        self.check_size(&path.to_string(), bytes.len())?;
        self.check_way(path)?;
        let kind = match kind {
            Some(kind) => kind,
            None => self.read(path)?.map_or(Kind::File, |there| there.kind),
        };
        if kind == Kind::Submodule {
            return Err(Error::InTheWay {
                path: path.to_string(),
                other: path.to_string(),
                what: "a submodule",
            });
        }
        self.stage(path, Staged::Content(Content { kind, bytes }))
    }

    /// Removes a file, or a directory with all that is below it.
    ///
    /// # Errors
    ///
    /// If there is nothing.
    pub fn remove(&mut self, path: &RepoPath) -> Result<(), Error> {
        if self.read(path)?.is_some() {
            return self.stage(path, Staged::Removed);
        }
        let below = self.list(Some(path))?;
        if below.is_empty() {
            return Err(Error::NotFound(path.to_string()));
        }
        for entry in below {
            self.stage(&entry.path, Staged::Removed)?;
        }
        Ok(())
    }

    /// Gives a file another name.
    ///
    /// # Errors
    ///
    /// If there is none, or something at the other name.
    pub fn rename(&mut self, from: &RepoPath, to: &RepoPath) -> Result<(), Error> {
        let content = self.read(from)?;
        let content = content.ok_or_else(|| Error::NotFound(from.to_string()))?;
        if self.read(to)?.is_some() {
            return Err(Error::Exists(to.to_string()));
        }
        self.all_or_nothing(|canvas| {
            canvas.stage(from, Staged::Removed)?;
            canvas.write(to, content.bytes, Some(content.kind))
        })
    }

    fn check_size(&self, what: &str, bytes: usize) -> Result<(), Error> {
        match bytes as u64 <= self.limits.file_bytes {
            true => Ok(()),
            false => Err(Error::TooLarge {
                what: format!("`{what}`"),
                found: bytes as u64,
                limit: self.limits.file_bytes,
            }),
        }
    }

    /// Makes sure that a path can be a file: nothing above it is one, and nothing is below it.
    fn check_way(&self, path: &RepoPath) -> Result<(), Error> {
        let in_the_way = |other: &[u8], what| Error::InTheWay {
            path: path.to_string(),
            other: String::from_utf8_lossy(other).into_owned(),
            what,
        };
        for above in path.ancestors() {
            if self.read(&RepoPath::new(above)?)?.is_some() {
                return Err(in_the_way(above, "a file"));
            }
        }
        if self.read(path)?.is_none() && !self.list(Some(path))?.is_empty() {
            return Err(in_the_way(path.as_bytes(), "a directory"));
        }
        Ok(())
    }

    fn stage(&mut self, path: &RepoPath, staged: Staged) -> Result<(), Error> {
        let size = |staged: &Staged| match staged {
            Staged::Content(content) => content.bytes.len() as u64,
            Staged::Removed => 0,
        };
        let others = self.staged.iter().filter(|(other, _)| *other != path);
        let found: u64 = others.map(|(_, staged)| size(staged)).sum::<u64>() + size(&staged);
        if found > self.limits.staged_bytes {
            return Err(Error::TooLarge {
                what: "what is staged".to_owned(),
                found,
                limit: self.limits.staged_bytes,
            });
        }
        self.staged.insert(path.clone(), staged);
        Ok(())
    }

    /// Applies a patch, all of it or nothing. How far it may be off is said in [`patch`].
    ///
    /// # Errors
    ///
    /// If it is no patch, or a part of it does not fit: then the canvas is as it was.
    pub fn apply_patch(&mut self, text: &[u8]) -> Result<Vec<Patched>, Error> {
        let patch = patch::parse(text)?;
        self.all_or_nothing(|canvas| canvas.apply(&patch))
    }

    /// Leaves what is staged as it was if an edit fails half way.
    pub(crate) fn all_or_nothing<T>(
        &mut self,
        edit: impl FnOnce(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let before = self.staged.clone();
        let edited = edit(self);
        if edited.is_err() {
            self.staged = before;
        }
        edited
    }

    /// Every file is read before any is written, as git does: a patch may swap two names.
    fn apply(&mut self, patch: &patch::Patch) -> Result<Vec<Patched>, Error> {
        let mut results = Vec::new();
        // What an earlier part of the same patch made of a file is what a later part of it finds.
        let mut made: BTreeMap<RepoPath, Option<Content>> = BTreeMap::new();
        for file in &patch.files {
            let old = file.old.as_deref().map(RepoPath::new).transpose()?;
            let new = file.new.as_deref().map(RepoPath::new).transpose()?;
            let is_rename = old.is_some() && new.is_some() && old != new;
            let there = match &old {
                None => None,
                Some(path) => {
                    // A rename takes what stood there before the patch; a further change, what the patch made of it.
                    let earlier = made.get(path).filter(|_| !is_rename).cloned();
                    let there = match earlier {
                        Some(made) => made,
                        None => self.read(path)?,
                    };
                    let there = there.ok_or_else(|| Error::NotFound(path.to_string()))?;
                    Some(there)
                }
            };
            if let (None, Some(path)) = (&old, &new) {
                let is_there = match made.get(path) {
                    Some(made) => made.is_some(),
                    None => self.read(path)?.is_some(),
                };
                let goes = patch.files.iter().any(|other| {
                    other.old.as_deref() == Some(path.as_bytes())
                        && other.new.as_deref() != Some(path.as_bytes())
                        && !other.is_copy
                });
                if is_there && !goes {
                    return Err(Error::Exists(path.to_string()));
                }
            }
            let name = file.name();
            let (content, drifts) = content_after(file, there.as_ref(), &name)?;
            if let Some(path) = old
                .as_ref()
                .filter(|old| !file.is_copy && Some(*old) != new.as_ref())
            {
                made.entry(path.clone()).or_insert(None);
            }
            match &new {
                None if !content.is_empty() => {
                    return Err(Error::Misfit {
                        path: name,
                        source: patch::Misfit {
                            hunk: 1,
                            line: 1,
                            why: "it is to go, and the patch leaves something of it".to_owned(),
                        },
                    });
                }
                None => {}
                Some(path) => {
                    let kind = match (file.mode, &there) {
                        (Some(mode), _) => Kind::of_mode(mode),
                        (None, Some(there)) => there.kind,
                        (None, None) => Kind::File,
                    };
                    made.insert(
                        path.clone(),
                        Some(Content {
                            kind,
                            bytes: content,
                        }),
                    );
                }
            }
            let path = new.or(old).ok_or_else(|| Error::NotFound(name.clone()))?;
            results.push(Patched { path, drifts });
        }
        // What goes first, so that a file may become a directory and the other way round.
        for (path, _) in made.iter().filter(|(_, made)| made.is_none()) {
            if self.read(path)?.is_some() {
                self.stage(path, Staged::Removed)?;
            }
        }
        for (path, made) in made {
            if let Some(Content { kind, bytes }) = made {
                self.write(&path, bytes, Some(kind))?;
            }
        }
        Ok(results)
    }

    /// Makes a tree of what is staged, durably. A canvas without edits stays at its tree.
    ///
    /// # Errors
    ///
    /// If it cannot be written. What is staged stays so.
    pub fn step(&mut self) -> Result<TreeId, Error> {
        if self.staged.is_empty() {
            return Ok(TreeId(self.tree));
        }
        let tree = {
            let tree = self.find_tree(self.tree)?;
            let mut editor = tree.edit().map_err(Error::git("edit a tree"))?;
            // What goes first: a file may have become a directory, and the other way round.
            for (path, staged) in &self.staged {
                if matches!(staged, Staged::Removed) {
                    editor
                        .remove(path.as_bstr())
                        .map_err(Error::git("edit a tree"))?;
                }
            }
            for (path, staged) in &self.staged {
                if let Staged::Content(content) = staged {
                    let blob = self.store.write_blob(&content.bytes);
                    let blob = blob.map_err(Error::git("write a file"))?;
                    editor
                        .upsert(path.as_bstr(), content.kind.entry(), blob.detach())
                        .map_err(Error::git("edit a tree"))?;
                }
            }
            editor.write().map_err(Error::git("write a tree"))?.detach()
        };
        self.sync()?;
        self.tree = tree;
        self.staged.clear();
        Ok(TreeId(tree))
    }

    /// Waits until all objects of ours are on disk.
    pub(crate) fn sync(&self) -> Result<(), Error> {
        sync_filesystem(self.store.path())
    }

    /// Goes back to the tree of an earlier step. What is staged is forgotten.
    ///
    /// # Errors
    ///
    /// If there is no such tree.
    pub fn rollback(&mut self, to: TreeId) -> Result<(), Error> {
        self.find_tree(to.0)?;
        self.tree = to.0;
        self.staged.clear();
        Ok(())
    }

    /// What a patch would have to say to make `to` of `from`.
    ///
    /// # Errors
    ///
    /// If a tree or a file cannot be read.
    pub fn diff(&self, from: TreeId, to: TreeId) -> Result<crate::diff::Diff, Error> {
        crate::diff::between(self, from.0, to.0)
    }

    /// What was changed since the base commit, up to the last step.
    ///
    /// # Errors
    ///
    /// If a tree or a file cannot be read.
    pub fn preview(&self) -> Result<crate::diff::Diff, Error> {
        self.diff(self.base_tree()?, self.tree())
    }

    /// Stages what has changed elsewhere: used by what captures a directory.
    pub(crate) fn stage_content(&mut self, path: &RepoPath, content: Content) -> Result<(), Error> {
        self.stage(path, Staged::Content(content))
    }

    pub(crate) fn stage_removal(&mut self, path: &RepoPath) -> Result<(), Error> {
        self.stage(path, Staged::Removed)
    }
}

/// What a patch makes of a file's content.
fn content_after(
    file: &patch::FilePatch,
    there: Option<&Content>,
    name: &str,
) -> Result<(Vec<u8>, Vec<Drift>), Error> {
    let old = there.map_or(&[][..], |there| &there.bytes);
    match &file.body {
        Body::Hunks(hunks) => {
            let placed = patch::place(old, hunks).map_err(|source| Error::Misfit {
                path: name.to_owned(),
                source,
            })?;
            Ok((placed.content, placed.drifts))
        }
        Body::Replaced(bytes) => Ok((bytes.clone(), Vec::new())),
        Body::Delta(delta) => Ok((patch::apply_delta(old, delta)?, Vec::new())),
    }
}

/// Opens our store, and makes it if it is not there.
fn open_store(path: &Path, theirs: &Path) -> Result<gix::Repository, Error> {
    if !path.join("HEAD").exists() {
        fs::create_dir_all(path).map_err(Error::io("make the directory", path))?;
        gix::ThreadSafeRepository::init_opts(
            path,
            gix::create::Kind::Bare,
            gix::create::Options::default(),
            gix::open::Options::isolated(),
        )
        .map_err(Error::git("make a store for objects"))?;
    }
    let info = path.join("objects/info");
    fs::create_dir_all(&info).map_err(Error::io("make the directory", &info))?;
    let theirs = fs::canonicalize(theirs).map_err(Error::io("find", theirs))?;
    let alternates = info.join("alternates");
    let mut line = gix::path::into_bstr(&*theirs).into_owned();
    line.push(b'\n');
    if fs::read(&alternates).ok().as_deref() != Some(line.as_slice()) {
        fs::write(&alternates, line.as_slice()).map_err(Error::io("write", &alternates))?;
    }
    open_repository(path)
}

/// Waits until everything on the file system of a path is on disk (syncfs(2)): objects are many small files, and one call is
/// cheaper than one each.
pub(crate) fn sync_filesystem(path: &Path) -> Result<(), Error> {
    let directory = fs::File::open(path).map_err(Error::io("open", path))?;
    rustix::fs::syncfs(&directory).map_err(Error::io("sync", path))
}
