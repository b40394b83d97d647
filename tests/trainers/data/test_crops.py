"""Crops of clips."""

import numpy as np
import torch

import zoo
from zoo.trainers.data.crops import clip, crop_video
from zoo.trainers.data.options import VideoData
from zoo.trainers.data.signals import Signals


def test_a_clip_takes_frames_at_the_frame_step():
    video = torch.arange(12, dtype=torch.uint8).view(1, 12, 1, 1).expand(3, 12, 4, 4)
    options = VideoData(frames=4, frame_stride=3, crop=4, flip=False)
    starts = {tuple(crop_video(video, options, np.random.default_rng(seed))[0, :, 0, 0].tolist()) for seed in range(40)}
    assert starts == {(0, 3, 6, 9), (1, 4, 7, 10), (2, 5, 8, 11)}


def test_the_last_frame_of_a_short_video_is_repeated():
    video = torch.arange(3, dtype=torch.uint8).view(1, 3, 1, 1).expand(3, 3, 4, 4)
    assert clip(video, VideoData(frames=5), start=0)[0, :, 0, 0].tolist() == [0, 1, 2, 2, 2]


def test_of_a_long_video_only_the_first_frames_are_read(clips):
    signals = Signals(clips / "train", zoo.info("cosmos-dv").spec, VideoData(max_frames=7))
    assert [signals[number].shape[1] for number in range(3)] == [7, 7, 7]
