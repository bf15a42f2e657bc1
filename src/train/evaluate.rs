//! Evaluation by the training objective itself: its loss and figures on held-out batches.
use super::metrics::StepFigures;
use super::objective::{Batch, Evaluation, Evaluator, Objective};
use super::signals;
use crate::error::Result;

/// Means of an objective's loss and figures over fixed batches.
pub struct BatchEvaluator<'a, O: Objective> {
    /// The objective.
    pub objective: &'a O,
    /// Held-out batches; at least one.
    pub batches: Vec<O::Batch>,
}

impl<O: Objective> Evaluator for BatchEvaluator<'_, O> {
    /// Means over all batches, weighted by what they are means of.
    fn evaluate(&self, step: u64) -> Result<Evaluation> {
        let _guard = tch::no_grad_guard();
        let mut figures = StepFigures::default();
        let (mut loss, mut targets) = (0.0, 0.0);
        for batch in &self.batches {
            signals::check_overdue(step)?;
            let output = self.objective.loss(batch)?;
            loss += f64::try_from(&output.sum)?;
            targets += batch.targets();
            figures.add(output.metrics)?;
        }
        let cost = loss / targets;
        let mut fields = vec![("eval_loss".to_owned(), cost)];
        for (name, value) in figures.finish()? {
            fields.push((format!("eval_{name}"), f64::try_from(&value)?));
        }
        Ok(Evaluation { figures: fields, cost, samples: Vec::new() })
    }
}
