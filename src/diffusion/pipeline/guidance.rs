//! What becomes of predictions: the parts of a prompt are composed before classifier-free guidance, and the deviation is
//! brought back after it.

use ndarray::{Array3, ArrayView3, ArrayViewMut3, Zip};

/// The prediction for a prompt of several parts (Liu et al. 2022, arXiv 2206.01714): `base + Σ weight·(part − base)`. Guidance
/// then goes away from `base`, the prediction without the prompt, as in A1111's `combine_denoised`.
#[expect(clippy::needless_pass_by_value, reason = "a view is a reference")]
pub(super) fn compose<'a>(
    parts: impl Iterator<Item = (ArrayView3<'a, f32>, f32)>,
    base: ArrayView3<f32>,
) -> Array3<f32> {
    let mut composed = base.to_owned();
    for (part, weight) in parts {
        Zip::from(&mut composed)
            .and(part)
            .and(base)
            .for_each(|sum, part, base| *sum += weight * (part - base));
    }
    composed
}

/// Brings a guided prediction back to the deviation of the prediction for the prompt alone, by the share `rescale`, as
/// diffusers' `rescale_noise_cfg` does (Lin et al. 2023, arXiv 2305.08891, equations 15 and 16). Strong guidance makes the
/// prediction too large, and with it the contrast of the picture.
#[expect(clippy::needless_pass_by_value, reason = "a view is a reference")]
pub(super) fn rescale_noise_pred(mut guided: ArrayViewMut3<f32>, conditional: ArrayView3<f32>, rescale: f64) {
    if rescale <= 0.0 {
        return;
    }
    #[expect(clippy::cast_possible_truncation, reason = "predictions are f32")]
    let rescale = rescale as f32;
    // torch's `std` divides by one less than the number of values.
    let ratio = conditional.std(1.0) / guided.std(1.0);
    let factor = rescale * ratio + (1.0 - rescale);
    // Equal values deviate by nothing: there is nothing to bring back.
    if factor.is_finite() {
        guided.map_inplace(|value| *value *= factor);
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array3;
    use serde_json::Value;

    use super::*;

    fn array(values: &Value) -> Array3<f32> {
        let values: Vec<f32> = serde_json::from_value(values.clone()).unwrap();
        Array3::from_shape_vec((4, 3, 5), values).unwrap()
    }

    #[test]
    fn predictions_are_rescaled_as_diffusers_rescales_them() {
        let golden: Value =
            serde_json::from_str(include_str!("../../../tests/golden/guidance.json")).unwrap();
        for case in golden.as_array().unwrap() {
            let mut guided = array(&case["guided"]);
            let rescale: f64 = serde_json::from_value(case["rescale"].clone()).unwrap();
            rescale_noise_pred(guided.view_mut(), array(&case["conditional"]).view(), rescale);
            for (ours, theirs) in guided.iter().zip(&array(&case["rescaled"])) {
                assert!((ours - theirs).abs() <= 1e-6 * theirs.abs().max(1.0), "{rescale}: {ours} {theirs}");
            }
        }
    }

    #[test]
    fn a_prediction_of_equal_values_stays_as_it_is() {
        let mut flat = Array3::from_elem((4, 2, 2), 0.5);
        rescale_noise_pred(flat.view_mut(), Array3::from_elem((4, 2, 2), 1.0).view(), 0.7);
        assert!(flat.iter().all(|value| (value - 0.5).abs() < f32::EPSILON));
    }
}
