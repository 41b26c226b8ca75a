//! A QR code for a terminal.
use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};
use shared_daemon::error::Failure;

/// Black on white whatever the terminal's colours: scanners do not read the inverse.
const BLACK_ON_WHITE: &str = "\x1b[30;107m";
const PLAIN: &str = "\x1b[0m";

/// The code with its quiet zone, two modules a character; about 70 columns for the configuration of a client.
///
/// # Errors
/// More text than fits into a code.
pub(super) fn render(text: &str, coloured: bool) -> Result<String, Failure> {
    // The least redundancy: the larger the modules, the better a phone reads them off a screen.
    let code = QrCode::with_error_correction_level(text, EcLevel::L).map_err(|error| {
        Failure::Other(format!(
            "the configuration does not fit into a QR code ({error}); use --output"
        ))
    })?;
    let (dark, light) = if coloured {
        (Dense1x2::Dark, Dense1x2::Light)
    } else {
        // Without colours a character is light, on the common dark terminal: what is to be dark is left out.
        (Dense1x2::Light, Dense1x2::Dark)
    };
    let image = code
        .render::<Dense1x2>()
        .dark_color(dark)
        .light_color(light)
        .quiet_zone(true)
        .build();
    let lines = image.lines().map(|line| {
        if coloured {
            format!("{BLACK_ON_WHITE}{line}{PLAIN}\n")
        } else {
            format!("{line}\n")
        }
    });
    Ok(lines.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether each module of the screen is inked.
    fn modules(screen: &str) -> Vec<Vec<bool>> {
        let half = |line: &str, half: char| -> Vec<bool> {
            line.chars().map(|c| c == '█' || c == half).collect()
        };
        let lines = screen.lines().map(|line| {
            let line = line.strip_prefix(BLACK_ON_WHITE).unwrap_or(line);
            line.strip_suffix(PLAIN).unwrap_or(line)
        });
        lines
            .flat_map(|line| [half(line, '▀'), half(line, '▄')])
            .collect()
    }

    #[test]
    fn a_phone_reads_the_code_off_the_screen() {
        const SCALE: usize = 4;
        let text = "[Interface]\nPrivateKey = abc\n".repeat(8);
        for coloured in [true, false] {
            let screen = render(&text, coloured).unwrap();
            // In colours ink is black on white paper, without them ink is the light of a dark screen.
            let rows = modules(&screen);
            let pixel = |x: usize, y: usize| {
                if rows[y / SCALE][x / SCALE] == coloured {
                    0
                } else {
                    255
                }
            };
            let (width, height) = (rows[0].len() * SCALE, rows.len() * SCALE);
            let mut seen = rqrr::PreparedImage::prepare_from_greyscale(width, height, pixel);
            let grids = seen.detect_grids();
            assert_eq!(grids.len(), 1, "{screen}");
            assert_eq!(grids[0].decode().unwrap().1, text);
        }
    }

    #[test]
    fn more_than_fits_is_an_error() {
        let refused = render(&"x".repeat(4000), false).unwrap_err();
        assert!(refused.to_string().contains("--output"), "{refused}");
    }
}
