//! `preprocessor_config.json`: how pictures become pixel values.
//!
//! In: a directory. Out: [`Preprocessor`], or nothing where the model reads no pictures. transformers' newer
//! layout, which nests the same fields as `image_processor` in `processor_config.json`, is read too.
//!
//! The processors of ViT, CLIP and BLIP share their steps (resize, centre crop, rescale, normalise) and differ in
//! their defaults; the names of older and of fast versions mean the same.
//!
//! Invariants: the result's size is known and bounded; numbers are finite, deviations positive.
//!
//! Not here: other processors, which are refused by name; pixels.

use std::path::Path;

use crate::config::Config;
use crate::error::Result;
use crate::json::Json;

/// Pixels along an edge.
const EDGE: u32 = 1 << 13;

/// The steps, in their order.
#[derive(Clone, Debug, PartialEq)]
pub struct Preprocessor {
    /// The size to which pictures are resized.
    pub resize: Option<Resize>,
    /// How.
    pub filter: Filter,
    /// Height and width of the middle that is kept.
    pub crop: Option<[u32; 2]>,
    /// What bytes are multiplied with.
    pub rescale: Option<f64>,
    /// Mean and standard deviation of each channel.
    pub normalize: Option<[[f32; 3]; 2]>,
    /// Height and width of the result; `None`: the picture's own.
    pub size: Option<[u32; 2]>,
}

/// A size to resize to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resize {
    /// Height and width.
    Exact(u32, u32),
    /// The shorter edge; proportions stay.
    ShortestEdge(u32),
}

/// PIL's filters, in the order of their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// 0
    Nearest,
    /// 1
    Lanczos,
    /// 2
    Bilinear,
    /// 3
    Bicubic,
    /// 4
    Box,
    /// 5
    Hamming,
}

const FILTERS: [Filter; 6] = [
    Filter::Nearest,
    Filter::Lanczos,
    Filter::Bilinear,
    Filter::Bicubic,
    Filter::Box,
    Filter::Hamming,
];

/// What a processor does where the file is silent.
struct Defaults {
    class: &'static str,
    size: Resize,
    crop: Option<[u32; 2]>,
    filter: Filter,
    mean: [f64; 3],
    deviation: [f64; 3],
}

const OPENAI_MEAN: [f64; 3] = [0.48145466, 0.4578275, 0.40821073];
const OPENAI_DEVIATION: [f64; 3] = [0.26862954, 0.26130258, 0.27577711];

const PROCESSORS: [Defaults; 3] = [
    Defaults {
        class: "ViT",
        size: Resize::Exact(224, 224),
        crop: None,
        filter: Filter::Bilinear,
        mean: [0.5; 3],
        deviation: [0.5; 3],
    },
    Defaults {
        class: "CLIP",
        size: Resize::ShortestEdge(224),
        crop: Some([224, 224]),
        filter: Filter::Bicubic,
        mean: OPENAI_MEAN,
        deviation: OPENAI_DEVIATION,
    },
    Defaults {
        class: "Blip",
        size: Resize::Exact(384, 384),
        crop: None,
        filter: Filter::Bicubic,
        mean: OPENAI_MEAN,
        deviation: OPENAI_DEVIATION,
    },
];

/// What follows `ViT`, `CLIP` or `Blip` in a processor's name.
const SUFFIXES: [&str; 4] = [
    "ImageProcessor",
    "ImageProcessorFast",
    "ImageProcessorPil",
    "FeatureExtractor",
];

impl Preprocessor {
    /// Reads the file of a directory, if there is one; `model_type` tells the processor where the file does not.
    pub fn open(folder: &Path, model_type: Option<&str>) -> Result<Option<Self>> {
        let path = folder.join("preprocessor_config.json");
        if path.exists() {
            return Self::read(&Config::read(&path)?, model_type).map(Some);
        }
        let path = folder.join("processor_config.json");
        if !path.exists() {
            return Ok(None);
        }
        match Config::read(&path)?.section("image_processor")? {
            Some(section) => Self::read(&section, model_type).map(Some),
            None => Ok(None),
        }
    }

    /// Reads the fields of a processor.
    pub fn read(c: &Config, model_type: Option<&str>) -> Result<Self> {
        let defaults = defaults(c, model_type)?;
        for field in ["do_pad", "do_reduce_labels"] {
            if c.flag_or(field, false)? {
                return Err(c.refuse(field, "false"));
            }
        }
        let format = c.optional_text("input_data_format")?;
        if format.is_some_and(|format| format != "channels_first") {
            return Err(c.refuse("input_data_format", "\"channels_first\" or nothing"));
        }
        let resize = match c.flag_or("do_resize", true)? {
            true => Some(size(
                c,
                "size",
                matches!(defaults.size, Resize::Exact(..)),
                defaults.size,
            )?),
            false => None,
        };
        let crop = match c.flag_or("do_center_crop", defaults.crop.is_some())? {
            false => None,
            true => {
                let [height, width] = defaults.crop.unwrap_or([224; 2]);
                match size(c, "crop_size", true, Resize::Exact(height, width))? {
                    Resize::Exact(height, width) => Some([height, width]),
                    Resize::ShortestEdge(_) => {
                        return Err(c.wrong("crop_size", "`height` and `width`"));
                    }
                }
            }
        };
        let number = c.count_or("resample", 0..=5, defaults.filter as u32)?;
        let rescale = match c.flag_or("do_rescale", true)? {
            true => Some(c.real_or("rescale_factor", 1e-9..=1e9, 1.0 / 255.0)?),
            false => None,
        };
        let normalize = match c.flag_or("do_normalize", true)? {
            true => Some([
                channels(c, "image_mean", -1e6..=1e6, defaults.mean)?,
                channels(c, "image_std", 1e-6..=1e6, defaults.deviation)?,
            ]),
            false => None,
        };
        let exact = match resize {
            Some(Resize::Exact(height, width)) => Some([height, width]),
            Some(Resize::ShortestEdge(_)) | None => None,
        };
        Ok(Self {
            resize,
            filter: FILTERS[number as usize],
            crop,
            rescale,
            normalize,
            size: crop.or(exact),
        })
    }

    /// Checks that what comes out is what the model reads, `[edge, edge]`.
    pub fn check_size(&self, edge: u32, config: &Config) -> Result<()> {
        match self.size {
            None => Ok(()),
            Some(size) if size == [edge; 2] => Ok(()),
            Some([height, width]) => {
                let what = format!(
                    "found {edge}, but preprocessor_config.json makes pictures of {height} × {width} pixels"
                );
                Err(config.problem("image_size", what).input())
            }
        }
    }
}

/// The processor that the file names, or that belongs to the model.
fn defaults(c: &Config, model_type: Option<&str>) -> Result<&'static Defaults> {
    let of_class = |class: &str| PROCESSORS.iter().find(|p| p.class == class);
    for field in ["image_processor_type", "feature_extractor_type"] {
        let Some(name) = c.optional_text(field)? else {
            continue;
        };
        let class = SUFFIXES.iter().find_map(|suffix| name.strip_suffix(suffix));
        return class.and_then(of_class).ok_or_else(|| {
            c.refuse(
                field,
                "\"ViTImageProcessor\", \"CLIPImageProcessor\" or \"BlipImageProcessor\"",
            )
        });
    }
    let class = match model_type {
        Some("vit") => "ViT",
        Some("clip") => "CLIP",
        Some("blip-2") => "Blip",
        _ => "",
    };
    of_class(class).ok_or_else(|| c.wrong("image_processor_type", "the name of a processor"))
}

/// `{"height", "width"}`, `{"shortest_edge"}`, or one number: a square or a shorter edge.
fn size(c: &Config, field: &str, square: bool, default: Resize) -> Result<Resize> {
    match c.get(field) {
        None => Ok(default),
        Some(Json::Object(_)) => {
            let Some(object) = c.section(field)? else {
                return Ok(default);
            };
            if object.has("longest_edge") {
                return Err(
                    object.refuse("longest_edge", "`height` and `width`, or `shortest_edge`")
                );
            }
            match object.optional_count("shortest_edge", 1..=EDGE)? {
                Some(short) => Ok(Resize::ShortestEdge(short)),
                None => Ok(Resize::Exact(
                    object.count("height", 1..=EDGE)?,
                    object.count("width", 1..=EDGE)?,
                )),
            }
        }
        Some(_) => {
            let edge = c.count(field, 1..=EDGE)?;
            Ok(if square {
                Resize::Exact(edge, edge)
            } else {
                Resize::ShortestEdge(edge)
            })
        }
    }
}

/// A number for each of three channels, or one for all.
fn channels(
    c: &Config,
    field: &str,
    range: std::ops::RangeInclusive<f64>,
    default: [f64; 3],
) -> Result<[f32; 3]> {
    let expected = || format!("three numbers from {} to {}", range.start(), range.end());
    let number = |value: &Json| value.as_f64().filter(|v| range.contains(v));
    let values = match c.get(field) {
        None => Some(default.to_vec()),
        Some(Json::Array(values)) => values.iter().map(number).collect(),
        Some(value) => number(value).map(|value| vec![value; 3]),
    };
    match values.as_deref() {
        Some(&[r, g, b]) => Ok([r as f32, g as f32, b as f32]),
        _ => Err(c.wrong(field, expected())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::Limits;

    fn read(text: &str, model_type: Option<&str>) -> Result<Preprocessor> {
        let path = Path::new("preprocessor_config.json");
        let json = Json::parse(path, text.as_bytes(), Limits::CONFIG)?;
        Preprocessor::read(&Config::from_json(path, json)?, model_type)
    }

    #[test]
    fn processors_have_defaults_of_their_own() {
        for name in [
            "CLIPImageProcessor",
            "CLIPImageProcessorFast",
            "CLIPFeatureExtractor",
        ] {
            let p = read(&format!("{{\"image_processor_type\": \"{name}\"}}"), None).unwrap();
            assert_eq!(p.resize, Some(Resize::ShortestEdge(224)));
            assert_eq!((p.crop, p.size), (Some([224; 2]), Some([224; 2])));
            assert_eq!(p.filter, Filter::Bicubic);
        }
        let p = read(
            "{\"feature_extractor_type\": \"ViTFeatureExtractor\", \"size\": 32}",
            None,
        )
        .unwrap();
        assert_eq!((p.resize, p.crop), (Some(Resize::Exact(32, 32)), None));
        assert_eq!(
            (p.filter, p.normalize),
            (Filter::Bilinear, Some([[0.5; 3]; 2]))
        );
        let p = read(
            "{\"size\": 32, \"crop_size\": 30, \"do_normalize\": false}",
            Some("clip"),
        )
        .unwrap();
        assert_eq!(
            (p.resize, p.crop),
            (Some(Resize::ShortestEdge(32)), Some([30; 2]))
        );
        assert_eq!((p.rescale, p.normalize), (Some(1.0 / 255.0), None));
        let p = read(
            "{\"do_resize\": false, \"do_rescale\": false}",
            Some("blip-2"),
        )
        .unwrap();
        assert_eq!((p.resize, p.rescale, p.size), (None, None, None));
    }

    #[track_caller]
    fn refused(fields: &str, expected: &str) {
        let error = read(&format!("{{{fields}}}"), Some("vit"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("preprocessor_config.json: "), "{error}");
        assert!(error.contains(expected), "{fields}: {error}");
    }

    #[test]
    fn odd_settings_are_refused() {
        refused(
            "\"image_processor_type\": \"DonutImageProcessor\"",
            "found \"DonutImageProcessor\", supported is",
        );
        refused("\"image_processor_type\": 3", "expected a string");
        refused(
            "\"size\": {\"height\": 0, \"width\": 3}",
            "`size.height`: found 0",
        );
        refused("\"size\": {\"height\": 3}", "`size.width`: missing");
        refused("\"size\": 100000000", "`size`: found 100000000");
        refused(
            "\"size\": {\"shortest_edge\": 3, \"longest_edge\": 9}",
            "`size.longest_edge`",
        );
        refused("\"size\": \"big\"", "`size`: found \"big\"");
        refused(
            "\"do_center_crop\": true, \"crop_size\": {\"shortest_edge\": 3}",
            "`crop_size`",
        );
        refused("\"resample\": 6", "`resample`: found 6");
        refused("\"resample\": -1", "`resample`: found -1");
        refused("\"rescale_factor\": 0", "`rescale_factor`");
        refused("\"rescale_factor\": 1e300", "`rescale_factor`");
        refused(
            "\"image_mean\": [0.5, 0.5]",
            "`image_mean`: found an array of 2",
        );
        refused("\"image_mean\": [0.5, 0.5, \"x\"]", "`image_mean`");
        refused("\"image_std\": [0.5, 0.0, 0.5]", "`image_std`");
        refused("\"image_std\": 0", "`image_std`");
        refused("\"do_pad\": true", "`do_pad`");
        refused("\"do_resize\": 1", "`do_resize`");
        let error = read("{}", None).unwrap_err().to_string();
        assert!(error.contains("`image_processor_type`: missing"), "{error}");
    }
}
