//! Finds room for labels beside their points, so that none covers another, a marker or the edge.

/// A box in the picture: left, top, right and bottom.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rect {
    /// Left edge.
    pub left: f64,
    /// Top edge (smaller than bottom).
    pub top: f64,
    /// Right edge.
    pub right: f64,
    /// Bottom edge.
    pub bottom: f64,
}

impl Rect {
    /// A box about a point.
    pub(crate) fn about((x, y): (f64, f64), half: f64) -> Self {
        Rect { left: x - half, top: y - half, right: x + half, bottom: y + half }
    }

    /// Whether two boxes share any area.
    pub fn overlaps(&self, other: &Rect) -> bool {
        self.left < other.right && other.left < self.right && self.top < other.bottom && other.top < self.bottom
    }

    /// Whether another box lies wholly inside.
    pub fn holds(&self, other: &Rect) -> bool {
        self.left <= other.left && self.top <= other.top && self.right >= other.right && self.bottom >= other.bottom
    }

    fn holds_point(&self, (x, y): (f64, f64)) -> bool {
        self.left <= x && x <= self.right && self.top <= y && y <= self.bottom
    }

    fn grown(&self, by: f64) -> Self {
        Rect { left: self.left - by, top: self.top - by, right: self.right + by, bottom: self.bottom + by }
    }
}

/// A label with its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Placed {
    /// Index of the label among those given.
    pub index: usize,
    /// The box that the words fill.
    pub area: Rect,
    /// Whether the label lies so far from its point that a line must join the two.
    pub far: bool,
}

/// A label to place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    /// The point it names.
    pub at: (f64, f64),
    /// Width and height of the words.
    pub size: (f64, f64),
}

/// What labels should keep away from.
#[derive(Debug, Clone, Default)]
pub(crate) struct Obstacles {
    /// Never to be covered: markers.
    pub boxes: Vec<Rect>,
    /// Better not crossed: error bars and the lines between points.
    pub lines: Vec<((f64, f64), (f64, f64))>,
}

/// Beyond this distance (units of the picture) a label needs a line to its point.
const NEAR: f64 = 18.0;

/// A place for each label inside `room`. A label for which there is no room at all is missing from the answer.
pub(crate) fn place(labels: &[Wanted], obstacles: &Obstacles, room: Rect) -> Vec<Placed> {
    let mut order: Vec<usize> = (0..labels.len()).collect();
    // The most crowded first: they have the fewest places to go.
    let crowd = |i: usize| {
        let near = labels.iter().filter(|o| distance(o.at, labels[i].at) < labels[i].size.0 * 1.5).count();
        std::cmp::Reverse(near)
    };
    order.sort_by_key(|i| crowd(*i));
    let mut placed: Vec<Placed> = Vec::new();
    for index in order {
        if let Some((area, far)) = best(&labels[index], &placed, obstacles, room) {
            placed.push(Placed { index, area, far });
        }
    }
    placed.sort_by_key(|p| p.index);
    placed
}

fn best(label: &Wanted, placed: &[Placed], obstacles: &Obstacles, room: Rect) -> Option<(Rect, bool)> {
    let mut found: Option<(f64, Rect, f64)> = None;
    for (area, gap) in candidates(label) {
        // Costs only grow with distance, so once one is found that beats the bare distance, nothing further can win.
        if found.as_ref().is_some_and(|(cost, ..)| *cost <= gap) {
            break;
        }
        let free = room.holds(&area)
            && !placed.iter().any(|p| p.area.grown(2.0).overlaps(&area))
            && !obstacles.boxes.iter().any(|b| b.overlaps(&area));
        if !free {
            continue;
        }
        let cost = gap + crossings(label, &area, gap, placed, obstacles);
        if found.as_ref().is_none_or(|(least, ..)| cost < *least) {
            found = Some((cost, area, gap));
        }
    }
    found.map(|(_, area, gap)| (area, gap > NEAR))
}

/// What a place costs for the lines it hides, and for a joining line that runs through other labels.
fn crossings(label: &Wanted, area: &Rect, gap: f64, placed: &[Placed], obstacles: &Obstacles) -> f64 {
    // Words that touch a line read as badly as words on it.
    let shy = area.grown(2.5);
    let hidden: f64 = obstacles.lines.iter().map(|line| covered(&shy, *line)).sum();
    // A place on a line is worth a step aside, but not a long way.
    let mut cost = hidden * 1.6;
    if gap > NEAR {
        let joint = (label.at, nearest(area, label.at));
        cost += 6.0 + 40.0 * placed.iter().filter(|p| covered(&p.area, joint) > 0.0).count() as f64;
        cost += 10.0
            * obstacles.boxes.iter().filter(|b| !b.holds_point(label.at) && covered(b, joint) > 0.0).count() as f64;
    }
    cost
}

/// Boxes around the point with their distance to it, nearest first: sixteen directions, ring after ring.
fn candidates(label: &Wanted) -> impl Iterator<Item = (Rect, f64)> + '_ {
    const RINGS: [f64; 15] =
        [9.0, 11.5, 14.5, 18.0, 23.0, 30.0, 40.0, 52.0, 66.0, 84.0, 106.0, 134.0, 170.0, 220.0, 300.0];
    // Right and above first: where readers look for a label.
    const TURNS: [f64; 16] =
        [0.0, 45.0, -45.0, 90.0, -90.0, 180.0, 135.0, -135.0, 22.5, -22.5, 67.5, -67.5, 112.5, -112.5, 157.5, -157.5];
    let (w, h) = label.size;
    RINGS.iter().flat_map(move |gap| {
        TURNS.iter().map(move |turn| {
            let (sin, cos) = turn.to_radians().sin_cos();
            // The box touches the ring with the side or corner that faces the point.
            let (x, y) = (label.at.0 + gap * cos, label.at.1 - gap * sin);
            let left = x - w * (1.0 - cos.clamp(-1.0, 1.0)) / 2.0;
            let top = y - h * (1.0 + sin) / 2.0;
            (Rect { left, top, right: left + w, bottom: top + h }, *gap)
        })
    })
}

/// Length of the part of a line that lies under a box, to about two units.
fn covered(area: &Rect, (a, b): ((f64, f64), (f64, f64))) -> f64 {
    let length = distance(a, b);
    let steps = (length / 2.0).ceil().clamp(1.0, 600.0);
    let inside = (0..=steps as usize)
        .filter(|i| {
            let t = *i as f64 / steps;
            area.holds_point((a.0 + t * (b.0 - a.0), a.1 + t * (b.1 - a.1)))
        })
        .count();
    inside as f64 * length / (steps + 1.0)
}

/// The place on a box nearest to a point.
pub(crate) fn nearest(area: &Rect, (x, y): (f64, f64)) -> (f64, f64) {
    (x.clamp(area.left, area.right), y.clamp(area.top, area.bottom))
}

fn distance(a: (f64, f64), b: (f64, f64)) -> f64 {
    (a.0 - b.0).hypot(a.1 - b.1)
}
