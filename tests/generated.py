"""Generated inputs for whole jobs and transforms: property tests through Spark, which are marked `generated`."""

from hypothesis import HealthCheck, Phase, settings


def through_spark() -> settings:
    """Settings of a property test each of whose examples takes a second: a twentieth of the profile's examples.

    What fails is shown as it was drawn: to shrink it would take minutes.
    """
    return settings(
        max_examples=settings.default.max_examples // 20,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        database=None,
    )
