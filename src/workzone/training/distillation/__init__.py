"""Copying a large backbone into a small one."""

from workzone.training.distillation.proteus import Distillation
from workzone.training.distillation.teacher import TeacherFeatures, teacher_features, tokens

__all__ = ["Distillation", "TeacherFeatures", "teacher_features", "tokens"]
