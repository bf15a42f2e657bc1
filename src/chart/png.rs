//! Turns an SVG into a PNG, with a font that the program carries: the same picture on a machine without any font.
use resvg::{tiny_skia, usvg};

/// More than any report needs; keeps a wrong scale from taking the machine's memory.
const MOST_PIXELS: f64 = 64e6;

/// The picture as PNG bytes, on white; `scale` 2 gives two pixels for each unit of the SVG.
pub fn png_of_svg(svg: &str, scale: f32) -> Result<Vec<u8>, String> {
    let mut options = usvg::Options { font_family: "DejaVu Sans".into(), ..usvg::Options::default() };
    options.fontdb_mut().load_font_data(dejavu::sans::regular().to_vec());
    options.fontdb_mut().load_font_data(dejavu::sans::bold().to_vec());
    let tree = usvg::Tree::from_str(svg, &options).map_err(|e| format!("the SVG cannot be read: {e}"))?;
    let (width, height) = ((tree.size().width() * scale).ceil(), (tree.size().height() * scale).ceil());
    if !(width >= 1.0 && height >= 1.0 && f64::from(width) * f64::from(height) <= MOST_PIXELS) {
        return Err(format!("a picture of {width} x {height} pixels cannot be drawn; choose another scale"));
    }
    let mut pixels = tiny_skia::Pixmap::new(width as u32, height as u32)
        .ok_or_else(|| format!("a picture of {width} x {height} pixels cannot be drawn; choose another scale"))?;
    pixels.fill(tiny_skia::Color::WHITE);
    resvg::render(&tree, tiny_skia::Transform::from_scale(scale, scale), &mut pixels.as_mut());
    pixels.encode_png().map_err(|e| format!("the PNG cannot be written: {e}"))
}
