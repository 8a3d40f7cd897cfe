"""The picture in methods.md: one photograph by every method that can explain the default network.

python docs/gallery.py [--out docs/gallery.jpg]
"""

import argparse
from pathlib import Path

import skimage

import salience as sal


def main() -> None:
    """Every method at its defaults, those of other libraries left out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "gallery.jpg", help="the picture to write")
    out = parser.parse_args().out
    model = sal.load_model()
    image = sal.load_images([Path(skimage.__file__).parent / "data" / "chelsea.png"], model)
    found = []
    for name in (each for each in sal.list_methods() if not each.endswith(":NAME")):
        try:
            found.append(sal.explain(name, model, image))
        except sal.InputError as error:
            print(f"left out: {error}")
    sal.contact_sheet(found, columns=6).savefig(out, dpi=64, pil_kwargs={"quality": 82})


if __name__ == "__main__":
    main()
