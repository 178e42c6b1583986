"""``detzoo detect``."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from absl import flags

from detzoo.cli.flags import (
    SAVED_MODEL_HELP,
    Definer,
    beam_options_of,
    define_font_flag,
    define_runner_flags,
    define_tile_flags,
    values_of,
)
from detzoo.errors import UsageError
from detzoo.evaluate.best_threshold import BEST
from detzoo.tasks.detect import PROPOSALS_OVERLAP, detect
from detzoo.tasks.detect_video import (
    BATCH_SIZE,
    FRAMES_FILE,
    RETRIES,
    TIMEOUT_SECONDS,
    VideoOptions,
    detect_video,
    videos_among,
)

SUMMARY = "Detect on images, videos, cameras and streams: pictures with boxes, masks, names and scores, and a list."
DESCRIPTION = """
Accepts the models that `detzoo export` writes (.tflite and .onnx files, too), and SavedModels and .tflite files of the
Object Detection API.

    detzoo detect --saved_model=exported/saved_model --images=photos --output_dir=pictures
    detzoo detect --saved_model=exported --images='2024/*.jpg,cat.png' --output_dir=pictures --score_threshold=0.3
    detzoo detect --saved_model=exported --images=photos --output_dir=pictures --score_threshold=best \\
        --metrics=evaluation

An ensemble, or a model with test-time crops and flips, is named by its ensemble.json:

    detzoo detect --ensemble=ensemble.json --images=photos --output_dir=pictures

The masks of class-agnostic proposals overlap, because they are not suppressed. A mask that covers a better one by more
than half is not drawn; --max_drawn_overlap=1 draws all of them. All are in detections.json.

A model that classifies given regions (SPP-net, Fast R-CNN) reads them from a file, by the names of the images:

    detzoo proposals --images=photos --output=photos.npz
    detzoo detect --saved_model=exported --images=photos --proposals=photos.npz --output_dir=pictures

Videos, cameras and streams (needs the extra detzoo[video]) become an annotated video each, which browsers play, and
detections.jsonl with one line per frame. Frames are decoded, detected on and encoded at the same time:

    detzoo detect --saved_model=exported --video=street.mp4 --output_dir=pictures
    detzoo detect --saved_model=exported --video=0 --output_dir=pictures                  (a camera, until Ctrl-C)
    detzoo detect --saved_model=exported --video=rtsp://10.0.0.7/stream1 --track --no_pictures --output_dir=pictures

Ctrl-C ends the run, and the video is playable. A camera or stream that breaks off or stalls is opened again. --track
(needs the extra detzoo[track]) numbers the objects. --no_pictures writes no video, only detections.jsonl.

--images takes files, folders (with their subfolders) and quoted globs, repeated or separated by commas. Images are
turned upright by their EXIF orientation. A file that cannot be read, or has more pixels than --max_image_megapixels, is
reported, skipped and counted; the exit code is 0 unless no image could be used (1). Symbolic links that lead out of a
folder are skipped: name the files or a pattern to read them.

Objects that are small in a large image are found on tiles of it. The tiles overlap, so that most objects are whole in
one of them:

    detzoo detect --saved_model=exported --images=aerial --output_dir=pictures --tile=640 --tile_overlap=0.2

--formats writes label files too, for tools in which a person corrects them: yolo/, voc/, labelme/ and detections.csv in
the output folder. `detzoo dataset` reads all of them.

    detzoo detect --saved_model=exported --images=photos --output_dir=labels --formats=voc,labelme --no_pictures

detections.json is updated while the command runs. If it is interrupted, the same command resumes; with another model,
label map, threshold, tiles or font it starts over. Label files are written at the end.

Names are drawn with DejaVu Sans, which has Latin, Greek, Cyrillic, Armenian, Georgian, Hebrew and Arabic letters;
--font=NotoSansCJK-Regular.ttc names a font for other scripts.
"""


def define_flags(flag_values: flags.FlagValues) -> None:
    """Defines the flags for the model, the images and the pictures."""
    define = Definer(flag_values)
    define.string("saved_model", SAVED_MODEL_HELP)
    define.string("ensemble", "Instead of --saved_model: the ensemble.json of `detzoo ensemble`.")
    define.strings("images", "Files, folders and globs, separated by commas.")
    define.string("output_dir", "Folder for the pictures and detections.json.", required=True)
    text = "Names of the classes, also a text file with one per line; by default the label map next to the model."
    define.string("label_map", text)
    text = "For a model that classifies given regions: the proposals.npz of `detzoo proposals` for these images."
    define.string("proposals", text)
    _define_video_flags(define)
    text = (
        "Least score of the detections that are drawn and listed; 'best' takes the one with the best F1 from the "
        "metrics.json of `detzoo evaluate`, see --metrics."
    )
    define.number_or_word("score_threshold", text, BEST, 0.5, maximum=1.0)
    text = "With --score_threshold=best: the metrics.json of this model, or its folder; by default next to the model."
    define.string("metrics", text)
    define.integer("max_boxes", "Detections per image at most. Default: 100; with --tile 1000.", minimum=1)
    text = (
        "Do not draw a detection that overlaps a better one of its class by more than this IoU (of the masks, if there "
        f"are any). Default: {PROPOSALS_OVERLAP:g} for proposals with masks, else 1, which draws all."
    )
    define.number("max_drawn_overlap", text, maximum=1.0)
    define_font_flag(flag_values)
    define_tile_flags(flag_values)
    text = (
        "Images, tiles or frames that run together, if the model takes several. Default: 8 images for one-stage "
        f"detectors, 1 for others, {BATCH_SIZE} frames."
    )
    define.integer("batch_size", text, minimum=1)
    text = "Label files to write besides detections.json: yolo, voc, csv, labelme, separated by commas."
    define.strings("formats", text)
    define.boolean("save_crops", "Cut out each detection, as crops/<class>/<image>_<number>.jpg.")
    define_runner_flags(flag_values)
    define.boolean("no_pictures", "Write no pictures and annotated videos, only the lists; videos: prints the speed.")


def _define_video_flags(define: Definer) -> None:
    text = "Instead of --images: video files, folders and globs, numbers of cameras, addresses of streams (rtsp://...)."
    define.strings("video", text)
    define.integer("frame_stride", "Detect on every n-th frame of a video. Its speed stays as it is.", 1, minimum=1)
    define.integer("max_frames", "Frames of each video to detect on at most.", minimum=1)
    define.boolean("track", "Number the objects in a video, with ByteTrack: #1, #2, ...")
    text = "Seconds without a frame after which a camera or stream is opened again."
    define.number("stream_timeout", text, TIMEOUT_SECONDS, minimum=0.1)
    define.integer("stream_retries", "Attempts to open it again, with growing pauses.", RETRIES, minimum=0)


def _run_on_videos(videos: Sequence[str], flag_values: flags.FlagValues) -> None:
    """Detects on videos, and prints the speed and the counts by class."""
    options = VideoOptions(**values_of(flag_values, *(field.name for field in dataclasses.fields(VideoOptions))))
    names = ("saved_model", "ensemble", "label_map", "score_threshold", "metrics", "max_boxes", "max_drawn_overlap")
    values = values_of(flag_values, *names, "font", "tile", "tile_overlap", "no_pictures")
    for summary in detect_video(videos, flag_values.output_dir, options=options, **values):
        speed = ""
        if summary.frames_per_second:
            share = f"{100 * summary.model_share:.0f} % of the time in the model"
            speed = f", {summary.frames_per_second:.1f} per second ({share})"
        print(f"{summary.source}: {summary.num_frames} frames{speed}, {summary.detections.total()} detections")
        for name, count in summary.detections.most_common():
            objects = f", {summary.objects[name]} objects" if summary.objects else ""
            print(f"  {name}: {count} in {summary.frames[name]} frames{objects}")
    where = f"{FRAMES_FILE} is" if flag_values.no_pictures else f"the annotated video and {FRAMES_FILE} are"
    print(f"{where} in {flag_values.output_dir}")


def run(flag_values: flags.FlagValues) -> None:
    """Detects, and prints how many detections there are."""
    if videos := videos_among(**values_of(flag_values, "images", "video", "proposals")):
        if flag_values.runner:
            raise UsageError("--runner detects on images; leave it out for videos")
        _run_on_videos(videos, flag_values)
        return
    beam_options = beam_options_of(flag_values)
    names = ("saved_model", "ensemble", "label_map", "proposals", "score_threshold", "max_boxes", "max_drawn_overlap")
    outputs = ("font", "metrics", "tile", "tile_overlap", "batch_size", "formats", "save_crops", "no_pictures")
    values = values_of(flag_values, *names, *outputs)
    summary = detect(flag_values.images, flag_values.output_dir, beam_options=beam_options, **values)
    skipped = f", {len(summary.skipped)} unreadable files skipped" if summary.skipped else ""
    print(f"{summary.num_detections} detections on {summary.num_images} images{skipped}")
    written = [] if flag_values.no_pictures else ["pictures"]
    written += ["label files"] * bool(flag_values.formats) + ["crops"] * flag_values.save_crops
    listed = f"{', '.join(written)} and detections.json are" if written else "detections.json is"
    print(f"{listed} in {flag_values.output_dir}")
