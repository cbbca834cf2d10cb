//! Formats rows as a table, with columns like those of kubectl.

/// The number of spaces between two columns.
const GAP: usize = 3;

/// A table that may grow. Columns keep the widths of the rows that were printed before.
#[derive(Clone, Debug, Default)]
pub struct Table {
    widths: Vec<usize>,
}

impl Table {
    /// Formats the rows as lines. The last column is not padded, so that no line ends in spaces.
    pub fn format_rows(&mut self, rows: &[Vec<String>]) -> String {
        for row in rows {
            self.widths.resize(self.widths.len().max(row.len()), 0);
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        rows.iter().map(|row| self.format_row(row)).collect()
    }

    fn format_row(&self, row: &[String]) -> String {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&self.widths) {
            // Text from the API must not move the cursor of the terminal.
            line.extend(cell.chars().map(|c| if c.is_control() { ' ' } else { c }));
            line.extend(std::iter::repeat_n(' ', width + GAP - cell.chars().count()));
        }
        line.truncate(line.trim_end().len());
        line + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cells: [&str; 3]) -> Vec<String> {
        cells.map(str::to_owned).to_vec()
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_three_spaces_apart() {
        let text = Table::default().format_rows(&[
            row(["ID", "LOGIN", "AGE"]),
            row(["14", "Aurore56", "5s"]),
            row(["1500", "ö", "3m20s"]),
        ]);
        assert_eq!(text, "ID     LOGIN      AGE\n14     Aurore56   5s\n1500   ö          3m20s\n");
    }

    #[test]
    fn later_rows_keep_the_column_widths_of_earlier_rows() {
        let mut table = Table::default();
        table.format_rows(&[row(["ID", "LOGIN", "AGE"]), row(["1", "Aurore56", "5s"])]);
        assert_eq!(table.format_rows(&[row(["2", "x", "0s"])]), "2    x          0s\n");
    }

    #[test]
    fn a_cell_cannot_break_its_line_or_the_terminal() {
        assert_eq!(Table::default().format_rows(&[row(["1", "a\nb\u{1b}[2J", "x"])]), "1   a b [2J   x\n");
    }
}
