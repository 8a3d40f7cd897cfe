"""Tables."""

from rich.console import Console
from rich.text import Text

from salience.show.table import table


def test_columns_of_numbers_stand_to_the_right():
    made = table(["name", "value", "error", "empty"], [["a [b]", "1.5", "-", ""], [Text("c"), "-2e-05", "0.1 (too large)", ""]])
    assert [each.justify for each in made.columns] == ["left", "right", "left", "left"]


def test_what_is_in_a_cell_is_no_markup():
    console = Console(width=60)
    with console.capture() as captured:
        console.print(table(["[bold]a", "a"], [["[red]b[/red]", "[/]"]]))
    assert all(text in captured.get() for text in ("[bold]a", "[red]b[/red]", "[/]"))
