"""Forecasts of how long jobs will take, learned from earlier jobs. Knows plans and facts; no store, no engine."""

from gateway.forecast.accuracy import Record
from gateway.forecast.forecaster import Forecaster
from gateway.forecast.wait import Forecast

__all__ = ["Forecast", "Forecaster", "Record"]
