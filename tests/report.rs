//! The experiment's report: what must hold of the picture, the page and the sentences, whatever the data.
#![allow(clippy::unwrap_used)]
use collimate::experiment::report::*;

fn point(method: &str, value: f64, gold: f64, proxy: f64, kl: f64) -> Point {
    let setting = match method {
        "dpo" => format!("beta={value}"),
        "ppo" => format!("kl_coef={value}"),
        _ => String::new(),
    };
    Point {
        method: method.to_string(),
        setting,
        value: (method != "sft").then_some(value),
        seed: 1,
        step: 100,
        gold_reward: gold,
        gold_reward_se: 0.04,
        proxy_reward: proxy,
        proxy_reward_se: 0.04,
        kl,
        kl_se: 0.03 * kl,
        kl_log_ratio: kl,
        win_rate: 0.6,
        win_rate_se: 0.02,
        completion_tokens: 40.0,
        finished: 0.9,
        train_seconds: 75.0,
        run: format!("runs/{method}-{value}"),
    }
}

/// SFT, five of DPO and six of PPO: as many as an experiment is likely to have.
fn dozen() -> Vec<Point> {
    let mut points = vec![point("sft", 0.0, 0.0, 0.0, 0.0)];
    for (i, beta) in [0.5, 0.2, 0.1, 0.05, 0.02].into_iter().enumerate() {
        let kl = 0.8 * (i + 1) as f64;
        points.push(point("dpo", beta, 0.3 * kl, 0.31 * kl, kl));
    }
    for (i, coef) in [0.2, 0.1, 0.05, 0.02, 0.01, 0.005].into_iter().enumerate() {
        let kl = 0.7 * (i + 1) as f64;
        points.push(point("ppo", coef, 0.28 * kl - 0.01 * kl * kl, 0.5 * kl, kl));
    }
    points
}

fn report(points: Vec<Point>) -> Report {
    Report {
        title: "A <title> & more".to_string(),
        facts: vec![Fact { name: "judge".to_string(), value: "84.7% <ok>".to_string() }],
        points,
        charts: vec![Chart {
            title: "loss <b>".to_string(),
            x_label: "optimiser step".to_string(),
            y_label: "loss (nats)".to_string(),
            series: vec![Series {
                label: "a&b".to_string(),
                points: vec![(0.0, 1.0), (1.0, f64::NAN), (2.0, 0.5)],
                marks: false,
            }],
            log: false,
        }],
        samples: vec![SampleSet {
            prompt: "<script>alert('p')</script>".to_string(),
            completions: vec![Completion {
                label: "DPO beta=0.1".to_string(),
                text: "</td><script>alert(\"c\")</script>\u{1b}[31m\u{0}".to_string(),
                gold_reward: f64::NAN,
            }],
        }],
        parts: vec![Part {
            name: "dpo".to_string(),
            command: "collimate train 'a&b'".to_string(),
            seconds: 61.0,
            settings: "x = \"<script>\"".to_string(),
            reused: true,
        }],
        total_seconds: 3700.0,
    }
}

fn said(points: &[Point]) -> String {
    sentences(points).join("\n")
}

fn assert_apart(points: &[Point], labels: usize) {
    let (boxes, area) = label_boxes(points);
    assert_eq!(boxes.len(), labels, "{boxes:?}");
    for (i, (name, a)) in boxes.iter().enumerate() {
        assert!(area.holds(a), "{name} leaves the panel: {a:?}");
        // DejaVu Sans at 12.5 units: digits are 7.95 wide, and these labels average more than 6 a character.
        assert!(a.right - a.left >= 6.0 * name.chars().count() as f64, "{name} is wider than its box");
        for (other, b) in &boxes[i + 1..] {
            assert!(!a.overlaps(b), "{name} {a:?} covers {other} {b:?}");
        }
    }
}

#[test]
fn text_of_models_is_escaped() {
    let page = html(&report(dozen()));
    assert!(!page.contains("<script"), "a script came through");
    assert!(page.contains("&lt;script&gt;alert(&#39;p&#39;)"));
    assert!(page.contains("&lt;/td&gt;&lt;script&gt;alert(&quot;c&quot;)"));
    assert!(page.chars().all(|c| c == '\n' || !c.is_control()), "a control character came through");
    assert!(page.contains("content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\""));
}

#[test]
fn page_names_no_outside_address() {
    let page = html(&report(dozen())).replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
    for word in ["http://", "https://", "url(", "@import", "src=", "href=", "<script", "NaN"] {
        assert!(!page.contains(word), "the page has {word}");
    }
}

#[test]
fn page_shows_every_section() {
    let page = html(&report(dozen()));
    for word in
        ["All points", "Samples", "Training curves", "How to read", "Settings", "reused", "1 min 01 s", "1 h 01 min"]
    {
        assert!(page.contains(word), "the page lacks {word}");
    }
    for (open, close) in
        [("<table", "</table>"), ("<tr", "</tr>"), ("<td", "</td>"), ("<svg", "</svg>"), ("<figure", "</figure>")]
    {
        assert_eq!(page.matches(open).count(), page.matches(close).count(), "{open}");
    }
}

#[test]
fn empty_report_is_a_page() {
    let empty = Report { charts: vec![], samples: vec![], parts: vec![], facts: vec![], ..report(vec![]) };
    let page = html(&empty);
    assert!(page.contains("No model was measured"));
    assert!(!page.contains("Training curves"));
}

#[test]
fn labels_of_a_dozen_points_stay_apart() {
    assert_apart(&dozen(), 12);
    // All on one spot, and with a KL range that calls for the square root.
    let spot: Vec<Point> = dozen().into_iter().map(|p| Point { kl: 3.0, gold_reward: 0.4, ..p }).collect();
    assert_apart(&spot, 12);
    let wide: Vec<Point> = dozen().into_iter().map(|p| Point { kl: p.kl.powi(4) * 2.0, ..p }).collect();
    assert_apart(&wide, 12);
    assert!(frontier_svg(&wide).contains("square-root scale"));
    assert!(!frontier_svg(&dozen()).contains("square-root scale"));
}

#[test]
fn points_that_are_not_finite_are_left_out_and_told() {
    let mut points = dozen();
    points[2].gold_reward = f64::NAN;
    points[7].kl = f64::INFINITY;
    points[8].gold_reward_se = f64::NAN;
    let svg = frontier_svg(&points);
    assert!(svg.contains("Left out: 2 points") && svg.contains("No standard error is known for 1 point."));
    assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    assert!(said(&points).contains("2 points are left out"));
    assert_apart(&points, 10);
    let none: Vec<Point> = points.into_iter().map(|p| Point { gold_reward: f64::NAN, ..p }).collect();
    assert!(frontier_svg(&none).contains("no point to draw"));
    assert!(said(&none).contains("No model was measured"));
}

#[test]
fn odd_data_is_drawn() {
    let one = vec![point("ppo", 0.05, 0.3, f64::NAN, 2.0)];
    let zero: Vec<Point> = dozen()
        .into_iter()
        .map(|p| Point { kl: 0.0, kl_se: 0.0, gold_reward: 0.0, gold_reward_se: 0.0, ..p })
        .collect();
    let huge: Vec<Point> = dozen().into_iter().map(|p| Point { gold_reward: p.gold_reward * 1e9, ..p }).collect();
    let tiny: Vec<Point> = dozen().into_iter().map(|p| Point { kl: p.kl * 1e-7, kl_se: 0.0, ..p }).collect();
    let other = vec![point("best-of-n", 4.0, 0.3, 0.2, 1.0), point("sft", 0.0, 0.0, 0.0, f64::NAN)];
    for points in [one, zero, huge, tiny, other] {
        let svg = frontier_svg(&points);
        assert!(!svg.contains("NaN") && !svg.contains("inf\""), "{svg}");
        assert!(!sentences(&points).is_empty());
        assert!(png_of_svg(&svg, 0.5).is_ok());
    }
}

#[test]
fn seeds_of_a_setting_become_a_mean() {
    let mut points = dozen();
    for p in dozen() {
        points.push(Point { seed: 2, gold_reward: p.gold_reward + 0.1, ..p });
    }
    assert_apart(&points, 12);
    assert!(frontier_svg(&points).contains("single seeds (up to 2 a setting)"));
    // Two checkpoints of one run are no seeds.
    let steps = vec![point("dpo", 0.1, 0.2, 0.2, 1.0), Point { step: 200, ..point("dpo", 0.1, 0.4, 0.4, 2.0) }];
    let names: Vec<String> = label_boxes(&steps).0.into_iter().map(|b| b.0).collect();
    assert_eq!(names, ["β=0.1 step 100", "β=0.1 step 200"]);
}

#[test]
fn words_when_dpo_is_better() {
    let points = [
        point("sft", 0.0, 0.0, 0.0, 0.0),
        point("dpo", 0.5, 0.5, 0.5, 1.0),
        point("dpo", 0.1, 1.0, 1.0, 4.0),
        point("ppo", 0.1, 0.2, 0.3, 1.0),
        point("ppo", 0.01, 0.5, 2.0, 4.0),
    ];
    let said = said(&points);
    assert!(said.contains("both settings of DPO and both settings of PPO lie above SFT."), "{said}");
    assert!(
        said.contains("DPO has the higher gold reward by more than two standard errors at all 2 KLs compared"),
        "{said}"
    );
    assert!(said.contains("0.500 ± 0.057 in favour of DPO at a KL of 4.00 nats"), "{said}");
    assert!(
        said.contains("For DPO the KL grows as β falls: from 1.00 nats with β=0.5 to 4.00 nats with β=0.1."),
        "{said}"
    );
    assert!(
        said.contains("For PPO the proxy reward outruns the gold reward as KL grows, a sign of reward hacking"),
        "{said}"
    );
    assert!(said.contains("For DPO the gap between proxy and gold reward does not change"), "{said}");
}

#[test]
fn words_when_ppo_is_worse_than_sft() {
    let points = [
        point("sft", 0.0, 0.5, 0.5, 0.0),
        point("dpo", 0.1, 0.52, 0.5, 1.0),
        point("ppo", 0.1, 0.1, 0.3, 0.5),
        point("ppo", 0.01, -0.5, 2.0, 0.4),
    ];
    let said = said(&points);
    assert!(said.contains("DPO shows no difference from SFT; both settings of PPO lie below SFT"), "{said}");
    assert!(said.contains("ranges do not overlap (DPO 1.00 nats, PPO 0.40 to 0.50 nats)"), "{said}");
    assert!(said.contains("For PPO the KL does not always grow as the KL coefficient falls"), "{said}");
    assert!(said.contains("(more than two standard errors)"), "{said}");
    assert!(said.contains("The highest gold reward of PPO is 0.100 ± 0.040 with coef 0.1"), "{said}");
}

#[test]
fn words_when_nothing_can_be_told() {
    let close = [
        point("sft", 0.0, 0.5, 0.5, 0.0),
        point("dpo", 0.1, 0.52, 0.5, 2.0),
        point("ppo", 0.1, 0.45, 0.5, 1.0),
        point("ppo", 0.01, 0.53, 0.6, 3.0),
    ];
    let told = said(&close);
    assert!(told.contains(
        "At a KL of 2.00 nats there is no difference in gold reward between DPO and PPO that these samples can show"
    ));
    assert!(told.contains("the largest gap is 0.030 ± 0.049 in favour of DPO."), "{told}");
    let unknown: Vec<Point> = close.iter().map(|p| Point { gold_reward_se: f64::NAN, ..p.clone() }).collect();
    assert!(said(&unknown).contains("DPO and PPO cannot be told from SFT, since no standard error is known"));
    assert!(said(&close[1..]).contains("SFT itself was not measured"));
    assert!(said(&close[..2]).contains("No point of PPO was measured"));
    assert!(said(&close[..1]).contains("Only SFT was measured"));
}

#[test]
fn words_when_the_frontiers_cross() {
    let points = [
        point("sft", 0.0, 0.0, 0.0, 0.0),
        point("dpo", 0.5, 0.5, 0.5, 1.0),
        point("dpo", 0.1, 0.6, 0.6, 4.0),
        point("ppo", 0.1, 0.1, 0.3, 1.0),
        point("ppo", 0.01, 1.0, 1.0, 4.0),
    ];
    let said = said(&points);
    assert!(said.contains("of 2 KLs compared DPO is higher in gold reward at 1 and PPO at 1"), "{said}");
}

#[test]
fn png_has_its_size_and_is_not_blank() {
    let svg = frontier_svg(&dozen());
    let png = png_of_svg(&svg, 2.0).unwrap_or_default();
    let pixels = resvg::tiny_skia::Pixmap::decode_png(&png).expect("a PNG");
    assert_eq!(pixels.width(), 1800);
    let height: f64 =
        svg.split("height=\"").nth(1).and_then(|s| s.split('"').next()).and_then(|s| s.parse().ok()).unwrap_or(0.0);
    assert_eq!(f64::from(pixels.height()), (height * 2.0).ceil());
    let ink = |p: &resvg::tiny_skia::PremultipliedColorU8| p.red() < 128;
    assert!(pixels.pixels().iter().filter(|p| ink(p)).count() > 5000);
    // The title is words, not a missing font: ink where it stands.
    let title = pixels.pixels().iter().take(1800 * 60).filter(|p| ink(p)).count();
    assert!(title > 1000, "{title} dark pixels in the title");
    assert!(pixels.pixels().iter().all(|p| p.alpha() == 255));
    assert!(
        png_of_svg("no svg", 1.0).is_err() && png_of_svg(&svg, f32::NAN).is_err() && png_of_svg(&svg, 1e4).is_err()
    );
}

#[test]
fn report_survives_its_file_with_numbers_missing() {
    let mut all = report(dozen());
    all.points[3].proxy_reward = f64::NAN;
    let text = serde_json::to_string(&all).expect("JSON");
    let back: Report = serde_json::from_str(&text).expect("a report");
    assert!(back.points[3].proxy_reward.is_nan() && back.charts[0].series[0].points[1].1.is_nan());
    assert_eq!(back.points[2], all.points[2]);
    assert_eq!(html(&back), html(&all));
}
