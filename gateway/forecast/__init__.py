"""How long jobs will take, learned from what jobs took. Knows plans and facts; no store, no engine, no client."""

from gateway.forecast.accuracy import Record
from gateway.forecast.forecaster import Forecaster
from gateway.forecast.wait import Forecast

__all__ = ["Forecast", "Forecaster", "Record"]
