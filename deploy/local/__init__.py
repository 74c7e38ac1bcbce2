"""Real RocketMQ on this machine, for development and tests: jars from Maven, throw-away clusters on loopback ports.

Standard library only, so that it runs before anything is installed. Needs a JDK (17) and Maven (3.8).
"""

from deploy.local.cluster import LocalCluster, running_clusters, start_clusters, stop_clusters
from deploy.local.jars import DEFAULT_VERSION, VERSIONS, fetch_jars
from deploy.local.problems import LabProblem

__all__ = ["DEFAULT_VERSION", "VERSIONS", "LabProblem", "LocalCluster", "fetch_jars", "running_clusters", "start_clusters", "stop_clusters"]
