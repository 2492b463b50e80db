# SPDX-License-Identifier: GPL-2.0-or-later
"""The Processing provider: the list of algorithms and models."""

from __future__ import annotations

from qgis.core import QgsApplication, QgsProcessingProvider
from qgis.PyQt.QtGui import QIcon

from . import __version__, paths
from .algorithms.addcovariates import AddCovariates
from .algorithms.appendevents import AppendEvents
from .algorithms.backtest import Backtest
from .algorithms.buildgridfromlayer import BuildGridFromLayer
from .algorithms.checkevents import CheckEvents
from .algorithms.exportcube import ExportCube
from .algorithms.forecastheatmap import ForecastHeatMap
from .algorithms.hotspotclassify import HotSpotClassify
from .algorithms.loadsample import LoadSample
from .algorithms.rasterizeeventstocube import RasterizeEventsToCube
from .algorithms.scoreforecast import ScoreForecast
from .algorithms.setupenvironment import SetUpEnvironment
from .algorithms.shippedmodel import ForecastFromPoints
from .algorithms.trainconvlstm import TrainConvLstm
from .algorithms.trainheteroensemble import TrainHeteroEnsemble
from .algorithms.trainhotspotclassifier import TrainHotspotClassifier
from .algorithms.tunemodel import TuneModel
from .i18n import tr

ALGORITHMS = (
    CheckEvents,
    BuildGridFromLayer,
    RasterizeEventsToCube,
    AppendEvents,
    AddCovariates,
    ExportCube,
    TrainConvLstm,
    TrainHeteroEnsemble,
    TrainHotspotClassifier,
    TuneModel,
    ForecastHeatMap,
    HotSpotClassify,
    ScoreForecast,
    Backtest,
    LoadSample,
    SetUpEnvironment,
)

#: Models in ``resources/models``; they are made of the algorithms above.
MODELS = (ForecastFromPoints,)


class GridcastProvider(QgsProcessingProvider):
    """Makes Gridcast's algorithms known to toolbox, modeler, ``processing.run`` and ``qgis_process``."""

    def id(self) -> str:
        return "gridcast"

    def name(self) -> str:
        return "Gridcast"

    def longName(self) -> str:
        return tr("Gridcast: forecasts of crime and other events")

    def versionInfo(self) -> str:
        return __version__

    def svgIconPath(self) -> str:
        return str(paths.resource("icons", "gridcast.svg"))

    def icon(self) -> QIcon:
        return QIcon(self.svgIconPath())

    def supportedOutputRasterLayerExtensions(self) -> list[str]:
        # Grids and forecasts carry tags that only a GeoTIFF keeps.
        return ["tif", "tiff"]

    def load(self) -> bool:
        registry = QgsApplication.processingRegistry()
        registry.providerAdded.connect(self._add_models)
        return super().load()

    def unload(self) -> None:
        QgsApplication.processingRegistry().providerAdded.disconnect(self._add_models)
        super().unload()

    def loadAlgorithms(self) -> None:
        for algorithm in ALGORITHMS:
            self.addAlgorithm(algorithm())
        # A model finds its steps in the registry, which knows them only once this provider is added.
        if QgsApplication.processingRegistry().providerById(self.id()) is self:
            for model in MODELS:
                self.addAlgorithm(model())

    def _add_models(self, provider_id: str) -> None:
        if provider_id == self.id():
            self.refreshAlgorithms()
