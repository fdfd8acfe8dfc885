//! The learning rate as a pure function of the step.

use crate::config::Schedule;

/// The factor on every learning rate at a step (from 0) of `total` steps: it rises from 0 over `warmup` steps, then
/// stays or falls to 0 (`get_constant|linear|cosine_schedule_with_warmup` of Hugging Face).
#[expect(clippy::cast_precision_loss, reason = "numbers of steps are far below 2^52")]
pub fn factor(schedule: Schedule, step: usize, warmup: usize, total: usize) -> f64 {
    if step < warmup {
        return step as f64 / warmup as f64;
    }
    let progress = (step - warmup) as f64 / total.saturating_sub(warmup).max(1) as f64;
    match schedule {
        Schedule::Constant => 1.0,
        Schedule::Linear => (1.0 - progress).max(0.0),
        Schedule::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress.min(1.0)).cos()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warms_up_then_falls_as_asked() {
        let at = |schedule, step| factor(schedule, step, 10, 110);
        for schedule in [Schedule::Constant, Schedule::Linear, Schedule::Cosine] {
            assert!((at(schedule, 0)).abs() < 1e-12);
            assert!((at(schedule, 5) - 0.5).abs() < 1e-12);
            assert!((at(schedule, 10) - 1.0).abs() < 1e-12);
        }
        assert!((at(Schedule::Constant, 109) - 1.0).abs() < 1e-12);
        assert!((at(Schedule::Linear, 60) - 0.5).abs() < 1e-12);
        assert!((at(Schedule::Linear, 110)).abs() < 1e-12);
        // Half a cosine: a quarter of the way down at a third of the way.
        assert!((at(Schedule::Cosine, 60) - 0.5).abs() < 1e-12);
        assert!((at(Schedule::Cosine, 10 + 100 / 4) - (2.0 + 2.0_f64.sqrt()) / 4.0).abs() < 1e-12);
    }

    #[test]
    fn no_steps_divide_by_nothing() {
        assert!((factor(Schedule::Linear, 0, 0, 0) - 1.0).abs() < 1e-12);
        assert!(factor(Schedule::Cosine, 5, 0, 0).abs() < 1e-12);
    }
}
