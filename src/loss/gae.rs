//! Advantages of one episode and whitening over many. Pure, on host numbers; imports nothing.
//!
//! Advantages are made once an iteration from numbers that leave the device anyway; episodes keep their own lengths, so
//! nothing is masked.

/// Advantages and returns of an episode, both [T], by generalised advantage estimation.
///
/// delta_t = r_t + gamma v_{t+1} - v_t with v_T = 0 (the episode ends with its last token);
/// A_t = sum_l (gamma lambda)^l delta_{t+l}; the return is A_t + v_t. Schulman et al. 2016, eq. 16.
///
/// # Panics
/// When there is not one value a reward.
pub fn gae(rewards: &[f64], values: &[f64], gamma: f64, lambda: f64) -> (Vec<f64>, Vec<f64>) {
    assert_eq!(rewards.len(), values.len(), "one value a reward");
    let mut advantages = vec![0.0; rewards.len()];
    let (mut next_value, mut next_advantage) = (0.0, 0.0);
    for t in (0..rewards.len()).rev() {
        let delta = rewards[t] + gamma * next_value - values[t];
        next_advantage = delta + gamma * lambda * next_advantage;
        next_value = values[t];
        advantages[t] = next_advantage;
    }
    let returns = advantages.iter().zip(values).map(|(advantage, value)| advantage + value).collect();
    (advantages, returns)
}

/// Scales the numbers of all episodes to unit variance (unbiased, 1e-8 added to it), in place; `shift_mean`: to mean 0
/// too, otherwise the mean stays. Advantages lose their mean, rewards keep it (Ziegler et al. 2019, `whiten`).
pub fn whiten(episodes: &mut [Vec<f64>], shift_mean: bool) {
    let count = episodes.iter().map(Vec::len).sum::<usize>() as f64;
    if count < 2.0 {
        return;
    }
    let mean = episodes.iter().flatten().sum::<f64>() / count;
    let variance = episodes.iter().flatten().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0);
    let scale = 1.0 / (variance + 1e-8).sqrt();
    let kept = if shift_mean { 0.0 } else { mean };
    for value in episodes.iter_mut().flatten() {
        *value = (*value - mean) * scale + kept;
    }
}
