//! A table of figures: one line a program, one block of columns a number of connections.

use anyhow::{Context, Result};

use crate::load::{Exchange, Figure, Load, measure};
use crate::options::Plan;
use crate::wire::Dialogue;

/// One program's figures.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) program: String,
    /// (connections, figure)
    pub(crate) figures: Vec<(usize, Figure)>,
}

/// A table, printed while it grows.
#[derive(Debug)]
pub(crate) struct Table<'a> {
    plan: &'a Plan,
    pub(crate) title: String,
    pub(crate) rows: Vec<Row>,
}

impl<'a> Table<'a> {
    /// A table with nothing in it yet.
    pub(crate) fn new(plan: &'a Plan, title: &str) -> Self {
        println!("\n{title}");
        Self { plan, title: title.to_owned(), rows: Vec::new() }
    }

    /// Measures a program whose protocol has several steps.
    pub(crate) fn sessions(
        &mut self,
        program: &str,
        process: Option<u32>,
        connect: &(dyn Fn(usize) -> Result<Exchange> + Sync),
    ) -> Result<()> {
        self.measure(program, process, &Load::Sessions(connect))
    }

    /// Measures a program that answers questions.
    pub(crate) fn dialogues(
        &mut self,
        program: &str,
        process: Option<u32>,
        dialogue: &(dyn Fn(usize) -> Dialogue + Sync),
    ) -> Result<()> {
        self.measure(program, process, &Load::Dialogues(dialogue))
    }

    fn measure(&mut self, program: &str, process: Option<u32>, load: &Load<'_>) -> Result<()> {
        for &connections in &self.plan.connections {
            let figure = measure(connections, self.plan.seconds, process, load)
                .with_context(|| format!("{program}, {connections} connections"))?;
            self.add(program, connections, figure);
        }
        Ok(())
    }

    /// Takes in a figure that was measured elsewhere.
    pub(crate) fn add(&mut self, program: &str, connections: usize, figure: Figure) {
        println!(
            "  {program:<34} {connections:>2} connections: {:>9.0}/s   \
             p50 {:>8.3} ms   p99 {:>8.3} ms   slowest {:>8.3} ms   cpu {:>7.3} ms",
            figure.per_second,
            figure.p50.as_secs_f64() * 1e3,
            figure.p99.as_secs_f64() * 1e3,
            figure.slowest.as_secs_f64() * 1e3,
            figure.cpu
        );
        match self.rows.iter_mut().find(|row| row.program == program) {
            Some(row) => row.figures.push((connections, figure)),
            None => {
                self.rows.push(Row { program: program.to_owned(), figures: vec![(connections, figure)] });
            }
        }
    }

    /// Prints how the first row (ours) compares with the others.
    pub(crate) fn ratios(&self) {
        let Some((ours, others)) = self.rows.split_first() else { return };
        for other in others {
            for (connections, theirs) in &other.figures {
                let Some(mine) = ours.at(*connections) else { continue };
                println!(
                    "  ratio {}: {} / {} at {connections} connections = {:.2}",
                    self.title.split(':').next().unwrap_or(""),
                    ours.program,
                    other.program,
                    mine.per_second / theirs.per_second
                );
            }
        }
    }

    /// Whether a program was measured.
    pub(crate) fn has(&self, program: &str) -> bool {
        self.rows.iter().any(|row| row.program == program)
    }

    /// The figure of a program.
    pub(crate) fn figure(&self, program: &str, connections: usize) -> Option<Figure> {
        self.rows.iter().find(|row| row.program == program)?.at(connections)
    }
}

impl Row {
    /// The figure at a number of connections.
    pub(crate) fn at(&self, connections: usize) -> Option<Figure> {
        self.figures.iter().find(|(number, _)| *number == connections).map(|(_, figure)| *figure)
    }
}
