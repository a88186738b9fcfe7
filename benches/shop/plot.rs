//! The curves as an SVG: throughput on the left, latency on the right, a line for each side.

use std::error::Error;
use std::path::Path;

use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;
use serde_json::{Value, json};

/// What one side does with this number of clients.
#[derive(Debug, Clone, Copy)]
pub struct Point {
    pub clients: usize,
    pub rate: f64,
    pub p99_ms: f64,
}

/// One side's points.
#[derive(Debug, Clone)]
pub struct Curve {
    pub name: &'static str,
    pub points: Vec<Point>,
}

impl Curve {
    pub fn to_json(&self) -> Value {
        let point = |point: &Point| json!({ "clients": point.clients, "rate": point.rate, "p99Ms": point.p99_ms });
        json!({ "name": self.name, "points": self.points.iter().map(point).collect::<Vec<_>>() })
    }
}

const SIZE: (u32, u32) = (1080, 460);
/// Dark enough for white, and told apart without colours by their brightness.
const COLORS: [RGBColor; 2] = [RGBColor(0, 90, 170), RGBColor(220, 120, 20)];
const FONT: &str = "sans-serif";

/// Draws both panels on white, which is readable on a dark page too.
pub fn draw(curves: &[Curve], path: &Path) -> Result<(), Box<dyn Error>> {
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let title = "Holds of one SKU over HTTP, accepted";
    let (left, right) = root.titled(title, (FONT, 22))?.split_horizontally(SIZE.0 / 2);
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let highest = points().map(|point| point.rate).fold(0.0, f64::max);
    let [slowest, fastest] = [f64::max as fn(f64, f64) -> f64, f64::min]
        .map(|pick| points().map(|point| point.p99_ms).reduce(pick).expect("there are points"));
    panel(
        &left,
        "Throughput, thousands of holds per second",
        0.0..highest * 1.08,
        curves,
        |point| point.rate,
        thousands,
    )?;
    let decades = 10f64.powf(fastest.log10().floor())..10f64.powf(slowest.log10().ceil());
    panel(
        &right,
        "Latency, p99 in milliseconds",
        decades.log_scale(),
        curves,
        |point| point.p99_ms,
        |ms| ms.to_string(),
    )?;
    root.present()?;
    Ok(())
}

fn panel<Y>(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    caption: &str,
    y: Y,
    curves: &[Curve],
    value: impl Fn(&Point) -> f64,
    label: impl Fn(&f64) -> String,
) -> Result<(), Box<dyn Error>>
where
    Y: AsRangedCoord<Value = f64>,
    Y::CoordDescType: ValueFormatter<f64>,
{
    let clients = || curves.iter().flat_map(|curve| &curve.points).map(|point| point.clients);
    let most = clients().max().expect("there are points") as f64;
    let mut chart = ChartBuilder::on(area)
        .caption(caption, (FONT, 17))
        .margin(14)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d((1.0..most).log_scale().base(2.0), y)?;
    chart
        .configure_mesh()
        .x_desc("clients")
        .x_labels(12)
        .x_label_formatter(&|clients| clients.to_string())
        .y_label_formatter(&label)
        .label_style((FONT, 13))
        .axis_desc_style((FONT, 14))
        .max_light_lines(1)
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .draw()?;
    for (curve, color) in curves.iter().zip(COLORS) {
        let line = || curve.points.iter().map(|point| (point.clients as f64, value(point)));
        let marker = move |x, y| PathElement::new([(x, y), (x + 22, y)], color.stroke_width(3));
        chart
            .draw_series(LineSeries::new(line(), color.stroke_width(3)))?
            .label(curve.name)
            .legend(move |(x, y)| marker(x, y));
        chart.draw_series(line().map(|at| Circle::new(at, 4, color.filled())))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.9))
        .border_style(BLACK.mix(0.3))
        .label_font((FONT, 14))
        .draw()?;
    Ok(())
}

fn thousands(rate: &f64) -> String {
    if *rate == 0.0 { "0".to_owned() } else { format!("{}", rate / 1e3) }
}
