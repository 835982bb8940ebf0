"""What compiling gains and costs: speed reports, compilations and their reasons, profiles, and the
speed of the machine itself.
"""

from jaxdl.speed.compare import compare as compare
from jaxdl.speed.compare_function import compare_function as compare_function
from jaxdl.speed.compilations import Compilation as Compilation
from jaxdl.speed.compilations import Compilations as Compilations
from jaxdl.speed.compilations import why_compiled as why_compiled
from jaxdl.speed.device import DeviceSpeed as DeviceSpeed
from jaxdl.speed.device import measure_device as measure_device
from jaxdl.speed.profile import Profile as Profile
from jaxdl.speed.profile import profile as profile
from jaxdl.speed.report import SpeedReport as SpeedReport
