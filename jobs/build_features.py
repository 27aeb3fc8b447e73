"""Clean events, weigh interactions, extend dictionaries, as of a moment.

    python jobs/build_features.py --config conf/completejourney.yaml --run-id night

Reads bronze.events; writes silver.interactions, silver.quarantine, silver.items and silver.users, gold.user_features,
gold.item_features, gold.profile and both id dictionaries.
"""

from recsys_spark.stages.features import main

if __name__ == "__main__":
    raise SystemExit(main())
