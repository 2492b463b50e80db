<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>
<!-- SPDX-License-Identifier: GPL-2.0-or-later
     Template for probabilities. Values are fractions of the upper end of the ramp, which Gridcast takes
     from the data; {value} and {unit} in the labels are replaced then. -->
<qgis styleCategories="Symbology" version="3.22.0">
  <pipe>
    <provider>
      <resampling enabled="false" zoomedInResamplingMethod="nearestNeighbour" zoomedOutResamplingMethod="nearestNeighbour" maxOversampling="2"/>
    </provider>
    <rasterrenderer type="singlebandpseudocolor" band="1" opacity="1" alphaBand="-1" nodataColor="" classificationMin="0" classificationMax="1">
      <minMaxOrigin>
        <limits>None</limits>
        <extent>WholeRaster</extent>
        <statAccuracy>Estimated</statAccuracy>
      </minMaxOrigin>
      <rastershader>
        <colorrampshader colorRampType="INTERPOLATED" classificationMode="1" clip="0" minimumValue="0" maximumValue="1" labelPrecision="6">
          <item value="0" color="#ffffff" alpha="0" label="none"/>
          <item value="0.05" color="#fcfdbf" alpha="110" label="very low ({value})"/>
          <item value="0.25" color="#feb078" alpha="190" label="low ({value})"/>
          <item value="0.5" color="#f1605d" alpha="215" label="medium ({value})"/>
          <item value="0.75" color="#982d80" alpha="235" label="high ({value})"/>
          <item value="1" color="#2d115f" alpha="245" label="highest ({value} or more; {unit})"/>
          <rampLegendSettings useContinuousLegend="0" orientation="2" direction="0" prefix="" suffix="" minimumLabel="" maximumLabel=""/>
        </colorrampshader>
      </rastershader>
    </rasterrenderer>
    <brightnesscontrast brightness="0" contrast="0" gamma="1"/>
    <huesaturation saturation="0" grayscaleMode="0" colorizeOn="0" invertColors="0"/>
    <rasterresampler maxOversampling="2"/>
    <resamplingStage>resamplingFilter</resamplingStage>
  </pipe>
  <blendMode>0</blendMode>
</qgis>
