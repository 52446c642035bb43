"""What an evaluation costs beside the drawing of its images, on mini.

    python -m benchmarks.evaluation RUN_DIR

In turns, in seconds of processor time: the images of one checkpoint (8 prompts, 2 seeds, and those that
should not show the subject) drawn and scored as the evaluation does it, and the same images drawn by the
pipeline alone. The run is one of mini with a checkpoint; nothing is written into it.
"""

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

from dreamspace.evaluation.evaluate_job import prepared_evaluation
from dreamspace.evaluation.evaluation import BASE
from dreamspace.jobs.events import EventWriter


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    whole, plain = [], []
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as folder:
            job_dir = Path(folder)
            arguments = {"run_dir": str(options.run_dir), "out": folder}
            evaluation, entrants, _ = prepared_evaluation(job_dir, arguments, EventWriter(job_dir))
            evaluation.figures(BASE)
            started = time.process_time()
            evaluation.figures(entrants[0].candidate, entrants[0].folder)
            whole.append(time.process_time() - started)
            started = time.process_time()
            evaluation.painter.draw(evaluation.plan.drawings)
            plain.append(time.process_time() - started)
    ratio = median(a / b for a, b in zip(whole, plain, strict=True))
    print(f"| evaluation | {median(whole):.2f} s | plain drawing | {median(plain):.2f} s | {ratio:.2f} |")


if __name__ == "__main__":
    main()
