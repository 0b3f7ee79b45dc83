//! The voice of the demonstration: what goes in, what comes out, and whether it is what was promised.

use std::fmt::Display;

/// Prints the story and keeps count of its promises.
#[derive(Debug, Default)]
pub(crate) struct Narrator {
    chapter: usize,
    kept: usize,
    broken: Vec<String>,
}

impl Narrator {
    /// Opens the next chapter.
    pub(crate) fn chapter(&mut self, title: &str) {
        self.chapter += 1;
        println!("\n{}. {title}", self.chapter);
    }

    /// Something said to a daemon.
    pub(crate) fn sent(&self, line: impl Display) {
        print_marked('>', &line.to_string());
    }

    /// Something a daemon, or the next hop behind it, got out.
    pub(crate) fn received(&self, line: impl Display) {
        print_marked('<', &line.to_string());
    }

    /// A remark between the lines.
    pub(crate) fn remark(&self, text: impl Display) {
        println!("   … {text}");
    }

    /// A promise: printed as kept or broken, and counted.
    pub(crate) fn promise(&mut self, text: &str, kept: bool) {
        if kept {
            self.kept += 1;
            println!("   ✓ {text}");
        } else {
            println!("   ✗ {text}");
            self.broken.push(format!("chapter {}: {text}", self.chapter));
        }
    }

    /// The summary. True if every promise was kept, and at least one was made.
    pub(crate) fn finish(self) -> bool {
        println!("\n{} promises kept, {} broken", self.kept, self.broken.len());
        for text in &self.broken {
            println!("  broken: {text}");
        }
        self.broken.is_empty() && self.kept > 0
    }
}

/// Prints each line of `text` behind `mark`; long lines are cut, for the reader's sake.
fn print_marked(mark: char, text: &str) {
    const WIDTH: usize = 150;
    for line in text.lines() {
        let shown: String = line.chars().take(WIDTH).collect();
        let cut = if shown.len() < line.len() { "…" } else { "" };
        println!("   {mark} {shown}{cut}");
    }
}
